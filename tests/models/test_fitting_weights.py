"""Weights and models: what fits is loaded, and what does not is named, with nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.models.weights import load_weights, read_state_dict
from tests.tiny import assert_same, randomised, save_weights


def test_load_weights_names_the_first_tensors_that_do_not_fit() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(ModelError) as caught:
        load_weights(model, {"weight": torch.ones(5, 4), "extra": torch.ones(1)}, "w.pth")
    message = caught.value.message
    assert "w.pth" in message and "Linear" in message
    assert "weight is [5, 4], the model's [3, 4]" in message
    assert "bias is missing" in message
    assert "extra is not the model's" in message


def test_load_weights_counts_what_it_does_not_name() -> None:
    with pytest.raises(ModelError, match="and 1 more"):
        load_weights(nn.Linear(4, 3), {name: torch.ones(1) for name in "abcd"}, "w.pth")


def test_load_weights_changes_nothing_when_it_refuses() -> None:
    model = nn.Linear(4, 3)
    before = model.weight.clone()
    with pytest.raises(ModelError):
        load_weights(model, {"weight": torch.ones(3, 4)}, "w.pth")
    assert torch.equal(model.weight, before)


def from_file(path: Path, name: str = "test_vit", image_size: int | None = None) -> VisionTransformer:
    return load_model(name, WeightsRequest(WeightsSource.FILE, path), image_size).vit


@pytest.fixture(scope="module")
def trained() -> VisionTransformer:
    """A test_vit of 5 classes at its own 160 pixels."""
    return randomised(timm.create_model("test_vit", num_classes=5))


def test_a_model_gets_the_weights_of_the_file(tmp_path: Path, trained: VisionTransformer) -> None:
    loaded = from_file(save_weights(trained, tmp_path / "w.safetensors"))
    assert_same(dict(loaded.state_dict()), dict(trained.state_dict()))


@pytest.mark.parametrize("classes", [0, 1, 5, 21])
def test_classes_are_inferred(tmp_path: Path, classes: int) -> None:
    vit = timm.create_model("test_vit", num_classes=classes, img_size=96)
    loaded = load_model(
        "test_vit", WeightsRequest(WeightsSource.FILE, save_weights(vit, tmp_path / "w.safetensors")), 96
    )
    assert loaded.info.classes == classes
    assert loaded.vit.num_classes == classes


def test_another_image_size_is_named_and_taken_only_when_asked_for(tmp_path: Path) -> None:
    path = save_weights(
        randomised(timm.create_model("test_vit", num_classes=5, img_size=96)), tmp_path / "w.safetensors"
    )
    with pytest.raises(ModelError, match="pos_embed") as caught:
        from_file(path)
    assert "--imgsz 96" in caught.value.hint
    exact = from_file(path, image_size=96)
    assert torch.equal(exact.state_dict()["pos_embed"], read_state_dict(path).tensors["pos_embed"])
    resampled = from_file(path, image_size=128)
    assert resampled.state_dict()["pos_embed"].shape == (1, 65, 64)
    assert torch.equal(resampled.state_dict()["cls_token"], read_state_dict(path).tensors["cls_token"])


@pytest.mark.parametrize("other", ["resnet18", "test_vit2", "test_vit3", "vit_tiny_patch16_224", "mixer_s32_224"])
def test_weights_of_another_architecture_name_what_does_not_fit(tmp_path: Path, other: str) -> None:
    path = save_weights(timm.create_model(other, num_classes=4), tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        from_file(path)
    assert "do not fit" in caught.value.message
    assert caught.value.hint


def test_another_width_is_not_blamed_on_the_image_size(tmp_path: Path) -> None:
    path = save_weights(timm.create_model("vit_tiny_patch16_224", num_classes=4, depth=1), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"patch_embed\.proj\.weight is \[192, 3, 16, 16\], the model's \[64"):
        from_file(path)


@pytest.mark.parametrize("name", ["head.weight", "patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight"])
@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3, 4, 5)])
def test_tensors_of_absurd_shapes_do_not_crash(
    tmp_path: Path, trained: VisionTransformer, name: str, shape: tuple[int, ...]
) -> None:
    tensors = {**trained.state_dict(), name: torch.zeros(shape)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "w.safetensors")
    with pytest.raises((ModelError, InvalidArgument)):
        from_file(tmp_path / "w.safetensors")


def test_another_patch_size_is_another_model_and_never_resampled(tmp_path: Path) -> None:
    """As many tokens of patches twice as large: nothing but the patch embedding tells the two apart."""
    own = timm.create_model("test_vit").patch_embed
    path = tmp_path / "weights.safetensors"
    larger = timm.create_model("test_vit", patch_size=2 * own.patch_size[0], img_size=2 * own.img_size[0])
    assert larger.pos_embed.shape[1] == 1 + own.num_patches
    save_weights(larger, path)
    with pytest.raises(ModelError) as caught:
        from_file(path)
    side = 2 * own.patch_size[0]
    assert f"patch_embed.proj.weight is [64, 3, {side}, {side}]" in caught.value.message
