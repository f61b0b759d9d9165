"""Models of grey and RGBA images: by a name, from weights of as many channels, from weights for RGB as timm does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import adapt_input_conv

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.runtime import load
from tests.models.transformers_folders import written
from tests.shared import made_once, once_in_a_run
from tests.tiny import HALF, randomised, save_weights

NAME = "test_vit"
PATCHES = "patch_embed.proj.weight"


def weights(folder: Path, channels: int) -> Path:
    vit = randomised(timm.create_model(NAME, img_size=96, num_classes=5, in_chans=channels), seed=channels)
    return save_weights(vit, folder / f"{channels}.safetensors")


def loaded(path: Path, in_chans: int | None = None) -> LoadedModel:
    return load_model(NAME, WeightsRequest(WeightsSource.FILE, path, in_chans=in_chans), 96)


def patches_of(model: LoadedModel) -> torch.Tensor:
    return model.vit.state_dict()[PATCHES]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_those_of_the_weights(tmp_path: Path, channels: int) -> None:
    model = loaded(weights(tmp_path, channels))
    assert patches_of(model).shape[1] == model.preprocessing.channels == channels
    assert not any("patch embedding" in note for note in model.weights.notes)
    assert load_model(NAME, WeightsRequest(WeightsSource.RANDOM, in_chans=channels)).preprocessing.channels == channels


@pytest.mark.parametrize(("channels", "said"), [(1, "summed over red, green and blue"), (4, "repeated")])
def test_weights_for_rgb_are_adapted_as_timm_does_and_it_is_said(tmp_path: Path, channels: int, said: str) -> None:
    path = weights(tmp_path, 3)
    model = loaded(path, channels)
    torch.testing.assert_close(patches_of(model), adapt_input_conv(channels, patches_of(loaded(path))))
    assert any(said in note for note in model.weights.notes)


def test_weights_of_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"patch_embed\.proj\.weight") as caught:
        loaded(weights(tmp_path, 1), 4)
    assert caught.value.hint == "these weights are for images with 1 channel: leave --in-chans out"
    with pytest.raises(InvalidArgument, match="images have no 2 channels") as refused:
        WeightsRequest(WeightsSource.RANDOM, in_chans=2)
    assert "grey (1), RGB (3) or RGBA (4)" in refused.value.hint


def test_a_folder_of_hugging_face(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    name, own = str(tmp_path), WeightsRequest(WeightsSource.DEMO)
    rgb = load_model(name, own)
    grey = load_model(name, WeightsRequest(WeightsSource.DEMO, in_chans=1))
    torch.testing.assert_close(patches_of(grey), patches_of(rgb).sum(1, keepdim=True))
    assert grey.preprocessing.channels == 1
    assert any("made one of 1 as timm does" in note for note in grey.weights.notes)
    config, file = tmp_path / "config.json", next(tmp_path.glob("*.safetensors"))
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_channels": 1}))
    from safetensors.torch import load_file

    tensors = load_file(file)
    anchor = next(tensor for tensor in tensors if tensor.endswith("projection.weight"))
    save_file({**tensors, anchor: tensors[anchor].sum(1, keepdim=True).contiguous()}, file, {"format": "pt"})
    assert torch.equal(patches_of(load_model(name, own)), patches_of(grey))


@once_in_a_run
def exported(channels: int) -> list[Artifact]:
    def make(folder: Path) -> list[Artifact]:
        options = ExportOptions((HALF,), (mass_point(0.7),), output=folder / "artifacts")
        return export_model(loaded(weights(folder, channels)), options)

    return made_once(f"channels {channels}", make)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("channels", [1, 4])
def test_every_form_runs_on_every_runtime(channels: int, runtime: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 100, 120, channels), dtype=np.uint8)
    for artifact in exported(channels):
        assert artifact.manifest.inputs[0].shape == ("batch", channels, 96, 96)
        assert f"-{channels}chans-" in artifact.path.name
        golden, runner = artifact.golden(), load(artifact, runtime)
        assert golden.images.shape == (1, channels, 96, 96) and golden.pixels.shape == (96, 96, channels)
        np.testing.assert_allclose(runner.run(golden.images).logits, golden.logits, atol=1e-3)
        images = runner.preprocess(list(pixels))
        assert images.shape == (3, channels, 96, 96)
        assert len(runner.run(images).kept) == 3
        with pytest.raises(InvalidArgument, match=rf"not float32 \[B, {channels}, 96, 96\]"):
            runner.run(np.zeros((1, 3, 96, 96), np.float32))


def test_grey_files_are_predicted(tmp_path: Path) -> None:
    runner = load(exported(1)[1], "onnxruntime")
    colour = np.random.default_rng(1).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(colour).convert("L").save(tmp_path / "grey.png")
    one, other = runner.predict([tmp_path / "colour.png", tmp_path / "grey.png"])
    assert one == other
