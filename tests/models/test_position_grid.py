"""Position embeddings of images that are not square are never taken for those of square ones without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import ModelError
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from tests.tiny import randomised, save_weights


@pytest.fixture(scope="module")
def wide() -> VisionTransformer:
    """A test_vit for images of 64 × 256: 4 × 16 patches, as many as 128 × 128 has."""
    return randomised(timm.create_model("test_vit", num_classes=5, img_size=(64, 256)))


@pytest.fixture(scope="module")
def square() -> VisionTransformer:
    return randomised(timm.create_model("test_vit", num_classes=5, img_size=128))


def load(
    folder: Path, vit: VisionTransformer, image_size: int | tuple[int, int] | None, config: dict[str, Any] | None
) -> LoadedModel:
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    path = save_weights(vit, folder / "w.safetensors")
    return load_model("test_vit", WeightsRequest(WeightsSource.FILE, path), image_size)


def saying(height: int, width: int) -> dict[str, Any]:
    return {"architecture": "test_vit", "pretrained_cfg": {"input_size": [3, height, width]}}


@pytest.mark.parametrize("image_size", [None, (64, 256)])
def test_a_grid_that_is_said_to_be_no_square_is_read(
    tmp_path: Path, wide: VisionTransformer, image_size: tuple[int, int] | None
) -> None:
    loaded = load(tmp_path, wide, image_size, saying(64, 256))
    assert (loaded.info.image_size, loaded.weights.notes) == ((64, 256), ())
    assert torch.equal(loaded.vit.state_dict()["pos_embed"], wide.state_dict()["pos_embed"])
    assert loaded.preprocessing.image_size == (64, 256)


@pytest.mark.parametrize("image_size", [128, 96, (256, 64), (32, 512)])
def test_a_grid_that_is_said_to_be_no_square_is_not_taken_for_another(
    tmp_path: Path, wide: VisionTransformer, image_size: int | tuple[int, int]
) -> None:
    with pytest.raises(ModelError, match="64 × 256 pixels, a grid of 4 × 16 patches") as caught:
        load(tmp_path, wide, image_size, saying(64, 256))
    assert "--imgsz 64x256" in caught.value.hint


def test_a_grid_that_the_user_chose_is_read_and_said_to_be_assumed(tmp_path: Path, wide: VisionTransformer) -> None:
    loaded = load(tmp_path, wide, (64, 256), None)
    assert torch.equal(loaded.vit.state_dict()["pos_embed"], wide.state_dict()["pos_embed"])
    (note,) = loaded.weights.notes
    assert "taken as a grid of 4 × 16, assumed" in note


def test_a_square_grid_is_resampled_to_another_as_timm_does(tmp_path: Path, square: VisionTransformer) -> None:
    loaded = load(tmp_path, square, (96, 160), saying(128, 128))
    wanted = timm.create_model("test_vit", num_classes=5, img_size=128)
    wanted.load_state_dict(square.state_dict())
    wanted.set_input_size(img_size=(96, 160))
    torch.testing.assert_close(loaded.vit.state_dict()["pos_embed"], wanted.state_dict()["pos_embed"])
    assert loaded.info.geometry.patch_tokens == 6 * 10
    with pytest.raises(ModelError, match="8 × 8 patches, and not of 4 × 16"):
        load(tmp_path, square, (64, 256), saying(128, 128))


@pytest.mark.parametrize(
    "config",
    [
        {
            "architecture": "test_vit",
            "model_args": {"img_size": [64, 256]},
            "pretrained_cfg": {"input_size": [3, 160, 160]},
        },
        {"model_type": "vit", "hidden_size": 64, "image_size": [64, 256], "patch_size": 16},
    ],
)
def test_the_size_that_the_model_was_made_at_counts(
    tmp_path: Path, wide: VisionTransformer, config: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="64 × 256 pixels, a grid of 4 × 16 patches"):
        load(tmp_path, wide, 128, config)


@pytest.mark.parametrize("image_size", [128, 96])
def test_a_grid_that_nothing_says_is_assumed_square_and_said(
    tmp_path: Path, wide: VisionTransformer, image_size: int
) -> None:
    (note,) = load(tmp_path, wide, image_size, None).weights.notes
    assert "position embeddings of 64 patches are taken as a grid of 8 × 8, assumed" in note


@pytest.mark.parametrize("image_size", [None, 128, 96])
def test_a_grid_that_is_said_is_used_without_a_word(
    tmp_path: Path, square: VisionTransformer, image_size: int | None
) -> None:
    loaded = load(tmp_path, square, image_size, saying(128, 128))
    assert loaded.weights.notes == ()
    assert loaded.info.image_size == (image_size or 128, image_size or 128)
    if image_size in (None, 128):
        assert torch.equal(loaded.vit.state_dict()["pos_embed"], square.state_dict()["pos_embed"])


@pytest.mark.parametrize("image_size", [None, 128])
def test_a_size_that_position_embeddings_contradict_is_refused(
    tmp_path: Path, square: VisionTransformer, image_size: int | None
) -> None:
    with pytest.raises(ModelError, match=r"position embeddings of 64 patches.* 96 × 96 pixels, which are 36"):
        load(tmp_path, square, image_size, saying(96, 96))


@pytest.mark.parametrize("image_size", [None, 128])
def test_patches_that_make_no_square_are_refused(tmp_path: Path, image_size: int | None) -> None:
    vit = timm.create_model("test_vit", num_classes=5, img_size=(64, 128))
    with pytest.raises(ModelError, match="pos_embed is of 32 patches, no square grid"):
        load(tmp_path, vit, image_size, None)
