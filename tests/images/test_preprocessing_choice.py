"""How images are prepared for weights: files beside them, the user's choice, the model's name, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import CropMode, Interpolation
from sait_deploy.images.preprocessing_choice import PreprocessingChoice, parse_channels
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from tests.tiny import save_weights

TIMM = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8, "interpolation": "bilinear"}
PROCESSOR = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.2],
    "size": {"height": 64, "width": 64},
    "resample": 2,
    "image_processor_type": "ViTImageProcessor",
}
NAME = "assumed from the model's name"


def loaded(folder: Path, given: PreprocessingChoice = PreprocessingChoice(), size: int | None = 64) -> LoadedModel:
    """test_vit, shrunk as in ``family``, from a file in the folder."""
    path = folder / "weights.safetensors"
    if not path.exists():
        import timm

        save_weights(timm.create_model("test_vit", img_size=64, num_classes=3), path)
    return load_model("test_vit", WeightsRequest(WeightsSource.FILE, path, given), size)


def beside(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")


def test_without_a_file_all_is_assumed_from_the_name(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    assert set(model.preprocessing_sources.values()) == {NAME, "given"}
    assert model.preprocessing_sources["image_size"] == "given"
    assert model.preprocessing_sources["mean"] == NAME


@pytest.mark.parametrize("document", [{"architecture": "test_vit", "pretrained_cfg": TIMM}, TIMM])
def test_timms_configuration_is_read(tmp_path: Path, document: dict[str, Any]) -> None:
    beside(tmp_path, "config.json", document)
    model = loaded(tmp_path)
    found = model.preprocessing
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (found.resize, found.interpolation) == ((80, 80), Interpolation.BILINEAR)
    sources = model.preprocessing_sources
    assert {sources[name] for name in ("mean", "std", "resize", "interpolation")} == {"read from config.json"}
    assert sources["crop_mode"] == NAME


def test_its_image_size_is_the_model_s(tmp_path: Path) -> None:
    beside(tmp_path, "config.json", {"pretrained_cfg": {**TIMM, "input_size": [3, 64, 64]}})
    model = loaded(tmp_path, size=None)
    assert model.info.image_size == (64, 64)
    assert model.preprocessing_sources["image_size"] == "read from config.json"


def test_what_is_given_comes_first(tmp_path: Path) -> None:
    beside(tmp_path, "config.json", {"pretrained_cfg": TIMM})
    given = PreprocessingChoice(mean=(0.9,), crop_pct=0.5, interpolation=Interpolation.LANCZOS)
    model = loaded(tmp_path, given)
    assert (model.preprocessing.mean, model.preprocessing.resize) == ((0.9,) * 3, (128, 128))
    assert model.preprocessing.interpolation is Interpolation.LANCZOS
    assert model.preprocessing_sources["mean"] == "given"
    assert model.preprocessing_sources["std"] == "read from config.json"


@pytest.mark.parametrize(
    ("changes", "mode", "resize"),
    [
        ({}, CropMode.SQUASH, (64, 64)),
        ({"size": 64}, CropMode.SQUASH, (64, 64)),
        ({"size": {"shortest_edge": 73}, "crop_size": 64, "do_center_crop": True}, CropMode.CENTER, (73, 73)),
        ({"size": [64, 64]}, CropMode.SQUASH, (64, 64)),
        (
            {"size": {"height": 80, "width": 80}, "crop_size": {"height": 64, "width": 64}, "do_center_crop": True},
            CropMode.SQUASH,
            (80, 80),
        ),
    ],
)
def test_hugging_face_s_processor_is_read(
    tmp_path: Path, changes: dict[str, Any], mode: CropMode, resize: tuple[int, int]
) -> None:
    beside(tmp_path, "preprocessor_config.json", {**PROCESSOR, **changes})
    found = loaded(tmp_path, size=None).preprocessing
    assert (found.crop_mode, found.resize, found.image_size) == (mode, resize, (64, 64))
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert found.interpolation is Interpolation.BILINEAR


def test_a_processor_that_does_not_normalise(tmp_path: Path) -> None:
    beside(tmp_path, "preprocessor_config.json", {**PROCESSOR, "do_normalize": False})
    found = loaded(tmp_path).preprocessing
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("name", "document", "match"),
    [
        ("config.json", "{", "cannot be read"),
        ("config.json", "[]", "no JSON object"),
        ("config.json", {"pretrained_cfg": {**TIMM, "mean": [123.7, 116.3, 103.5]}}, "not of pixels scaled"),
        ("config.json", {"pretrained_cfg": {**TIMM, "std": [0, 0, 0]}}, "not of pixels scaled"),
        ("config.json", {"pretrained_cfg": {**TIMM, "mean": [0.5, 0.5]}}, "not one, three or four numbers"),
        ("config.json", {"pretrained_cfg": {**TIMM, "interpolation": "random"}}, "'random' is not offered"),
        ("config.json", {"pretrained_cfg": {**TIMM, "input_size": [2, 64, 64]}}, "input_size"),
        ("config.json", {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": TIMM}, "not of test_vit"),
        ("preprocessor_config.json", {**PROCESSOR, "rescale_factor": 0.5}, "1/255"),
        ("preprocessor_config.json", {**PROCESSOR, "do_rescale": False}, "1/255"),
        ("preprocessor_config.json", {**PROCESSOR, "do_resize": False}, "not resized"),
        ("preprocessor_config.json", {**PROCESSOR, "do_flip_channel_order": True}, "blue, green, red"),
        ("preprocessor_config.json", {**PROCESSOR, "rescale_offset": True}, "shifted as well as scaled"),
        ("preprocessor_config.json", {**PROCESSOR, "do_normalize": "false"}, "neither true nor false"),
        ("preprocessor_config.json", {**PROCESSOR, "resample": 5}, "resample 5"),
        ("preprocessor_config.json", {**PROCESSOR, "size": {"longest_edge": 9}}, "no height and width"),
        ("preprocessor_config.json", {**PROCESSOR, "size": {"shortest_edge": 64}}, "different sizes"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str, document: Any, match: str) -> None:
    beside(tmp_path, name, document)
    with pytest.raises(InvalidArgument, match=match) as caught:
        loaded(tmp_path)
    assert name in caught.value.message


def test_two_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    beside(tmp_path, "config.json", {"pretrained_cfg": TIMM})
    beside(tmp_path, "preprocessor_config.json", PROCESSOR)
    with pytest.raises(InvalidArgument, match="says mean"):
        loaded(tmp_path)
    same = {"image_mean": TIMM["mean"], "image_std": TIMM["std"], "size": {"shortest_edge": 80}, "crop_size": 64}
    beside(tmp_path, "preprocessor_config.json", {**PROCESSOR, **same})
    assert loaded(tmp_path).preprocessing.mean == (0.1, 0.2, 0.3)


def test_a_configuration_that_says_nothing_of_images(tmp_path: Path) -> None:
    beside(tmp_path, "config.json", {"hidden_size": 192, "architectures": ["ViTForImageClassification"]})
    assert loaded(tmp_path).preprocessing_sources["mean"] == NAME


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.1, 0.2)},
        {"mean": (127.5,)},
        {"mean": "0.5"},
        {"std": (0.0,)},
        {"std": (float("nan"),)},
        {"crop_pct": 0.0},
        {"crop_pct": 87.5},
        {"interpolation": "sharp"},
    ],
)
def test_choices_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        PreprocessingChoice(**wrong)


def test_names_of_filters_become_filters() -> None:
    assert PreprocessingChoice(interpolation="bicubic").interpolation is Interpolation.BICUBIC  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "values"), [("0.5", (0.5,)), ("0.1,0.2, 0.3", (0.1, 0.2, 0.3))])
def test_channels_from_text(text: str, values: tuple[float, ...]) -> None:
    assert parse_channels("mean", text) == values


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "one, three or"),
        ("a", "one, three or"),
        ("1,2", "one, three or"),
        ("300", "not of pixels"),
        ("-1", "not of"),
    ],
)
def test_channels_that_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^std .* is {'' if problem.startswith('not') else 'not '}{problem}"):
        parse_channels("std", text)
