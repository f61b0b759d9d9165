"""From a name and a source of weights to a model: the table against timm, and requests that cannot be met."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.creation import model_entry, supported_names
from sait_deploy.models.families import transformer_of
from sait_deploy.models.lvvit import LVViTTransformer
from sait_deploy.models.registry import WeightsRequest, describe, load_model
from sait_deploy.models.weights import TRAINING_KEY, SparseTraining, metadata_of, sha256_of_weights
from sait_deploy.tokens import Score
from tests.tiny import family, save_weights, small_vit

RANDOM = WeightsRequest(WeightsSource.RANDOM)
PRETRAINED = WeightsRequest(WeightsSource.PRETRAINED)
DEMO = WeightsRequest(WeightsSource.DEMO)
MODULES = ("vision_transformer", "deit", "eva")


@pytest.mark.slow
def test_the_table_holds_exactly_what_can_be_pruned() -> None:
    names = [name for module in MODULES for name in timm.list_models(module=module)]
    assert len(names) > 150
    can = []
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name, depth=1, **({"num_kv_heads": 2} if "sapiens2" in name else {}))
        try:
            transformer_of(model)
        except ModelError:
            continue
        can.append(name)
    assert [demo.NAME, *sorted([*can, *LVViTTransformer.names()])] == supported_names()
    assert len(can) < len(names)


def test_names_of_other_modules_are_not_in_the_table() -> None:
    table = set(supported_names())
    assert not table & set(timm.list_models(["swin*", "resnet*", "beit_*", "*naflex*", "hiera*"]))


@pytest.mark.parametrize(
    ("pattern", "some"),
    [
        ("", "deit_small_patch16_224"),
        ("deit3", "deit3_small_patch16_224"),
        ("deit*distilled*", "deit_tiny_distilled_patch16_224"),
        ("digits", demo.NAME),
        ("sait_*", demo.NAME),
    ],
)
def test_names_are_filtered(pattern: str, some: str) -> None:
    names = supported_names(pattern)
    assert some in names
    assert len(names) == len(set(names))
    assert all(part in name for name in names for part in pattern.split("*"))


def test_a_filter_that_nothing_matches() -> None:
    assert supported_names("no-such-model") == []


def test_the_demonstration_model_comes_first() -> None:
    names = supported_names()
    assert names[0] == demo.NAME
    assert names[1:] == sorted(names[1:])


def test_entries_need_no_model() -> None:
    assert model_entry("deit_small_patch16_224").image_size == 224
    assert model_entry("vit_base_patch16_384").image_size == 384
    assert model_entry(demo.NAME).image_size == demo.ARCHITECTURE["img_size"]
    assert model_entry("deit_small_patch16_224").pretrained >= 1


@pytest.mark.parametrize(
    ("name", "near"),
    [("deit_smal_patch16_224", "deit_small_patch16_224"), ("vit_base_patch16_244", "vit_base_patch16_224")],
)
def test_an_unknown_name_suggests_near_ones(name: str, near: str) -> None:
    with pytest.raises(ModelError, match="unknown model") as caught:
        load_model(name, RANDOM)
    assert name in caught.value.message
    assert near in caught.value.hint


def test_a_name_like_no_other_points_to_the_list() -> None:
    with pytest.raises(ModelError) as caught:
        load_model("?", RANDOM)
    assert "sait-deploy models" in caught.value.hint


@pytest.mark.parametrize("weights", [RANDOM, PRETRAINED])
def test_an_unknown_name_is_unknown_whatever_the_weights(weights: WeightsRequest) -> None:
    with pytest.raises(ModelError, match="unknown model 'deit_smal'"):
        load_model("deit_smal", weights)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("naflexvit_base_patch16_gap", "NaFlexVit"),
        ("resnet18", "ResNet"),
    ],
)
def test_other_models_are_refused_by_class(name: str, shown: str) -> None:
    with pytest.raises(ModelError, match=shown):
        load_model(name, RANDOM)


@pytest.mark.parametrize("source", [WeightsSource.RANDOM, WeightsSource.FILE])
def test_a_hub_name_needs_pretrained(source: WeightsSource, tmp_path: Path) -> None:
    path = save_weights(small_vit(), tmp_path / "w.safetensors") if source is WeightsSource.FILE else None
    with pytest.raises(ModelError, match="hub name") as caught:
        load_model("hf-hub:timm/test_vit.r160_in1k", WeightsRequest(source, path))
    assert "--pretrained" in caught.value.hint


_OFFLINE = """
from sait_deploy.errors import ModelError
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.models.registry import WeightsRequest, load_model
for name in ("test_vit", "hf-hub:nobody/nothing"):
    try:
        load_model(name, WeightsRequest(WeightsSource.PRETRAINED))
    except ModelError as error:
        print(error.message)
        print(error.hint)
"""


@pytest.mark.slow
def test_pretrained_without_network_is_one_clear_line(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("pretrained weights of test_vit cannot be had")
    assert lines[2].startswith("pretrained weights of hf-hub:nobody/nothing cannot be had")
    assert all("--weights FILE" in line for line in lines[1::2])
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "size", "near"), [("test_vit", 100, 96), ("test_vit", 8, 16), ("test_vit3", 161, 160)]
)
def test_an_image_size_that_patches_do_not_fill(name: str, size: int, near: int) -> None:
    with pytest.raises(InvalidArgument, match=f"image size {size}") as caught:
        load_model(name, RANDOM, size)
    assert f"try {near}" in caught.value.hint


@pytest.mark.parametrize("size", [64, 96, 320])
def test_another_image_size(size: int) -> None:
    loaded = load_model("test_vit", RANDOM, size)
    assert loaded.info.image_size == (size, size)
    assert loaded.info.geometry.patch_tokens == (size // 16) ** 2
    assert loaded.preprocessing.image_size == (size, size)
    assert loaded.default_image_size != (size, size)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    first = load_model("test_vit", RANDOM)
    assert torch.equal(torch.randn(3), expected)
    second = load_model("test_vit", RANDOM)
    assert first.weights == second.weights
    assert first.weights.source is WeightsSource.RANDOM
    assert first.weights.sha256 == sha256_of_weights(second.vit)


def test_no_source_stands_in_for_another() -> None:
    with pytest.raises(InvalidArgument, match="no weights were named for test_vit") as caught:
        load_model("test_vit", DEMO)
    assert all(option in caught.value.hint for option in ("--weights", "--pretrained", "--random-weights"))
    with pytest.raises(InvalidArgument, match="ships its weights"):
        load_model(demo.NAME, PRETRAINED)


def test_the_demonstration_model() -> None:
    loaded = load_model(demo.NAME, DEMO)
    assert loaded.info.labels == demo.LABELS
    assert loaded.info.classes == 10
    assert loaded.info.geometry.patch_tokens == 144
    assert loaded.weights.source is WeightsSource.DEMO
    assert load_model(demo.NAME, DEMO, demo.ARCHITECTURE["img_size"]).weights == loaded.weights
    random = load_model(demo.NAME, RANDOM)
    assert random.weights.source is WeightsSource.RANDOM
    assert random.weights.sha256 != loaded.weights.sha256
    own = load_model(demo.NAME, WeightsRequest(WeightsSource.FILE, demo.WEIGHTS))
    assert own.weights.source is WeightsSource.FILE
    assert own.weights.sha256 == loaded.weights.sha256


def test_the_demonstration_model_has_one_image_size() -> None:
    with pytest.raises(InvalidArgument, match="no image size 128"):
        load_model(demo.NAME, DEMO, 128)


def test_a_description_says_what_the_model_is() -> None:
    vit = family("deit-distilled")
    loaded = describe(vit, "mine", WeightsSource.MEMORY, None)
    info = loaded.info
    assert (info.name, info.timm_class) == ("mine", "VisionTransformerDistilled")
    assert info.parameters == sum(p.numel() for p in vit.parameters())
    assert (info.image_size, info.patch_size, info.classes) == ((64, 64), (16, 16), 1000)
    assert (info.geometry.patch_tokens, info.geometry.prefix_tokens, info.geometry.depth) == (16, 2, 3)
    assert loaded.weights.sha256 == sha256_of_weights(vit)
    assert not loaded.weights.trained_sparse
    assert loaded.weights.origin is None


@pytest.mark.parametrize("name", ["deit", "siglip", "clip-quickgelu", "dinov2-registers"])
def test_preprocessing_is_the_models_own(name: str) -> None:
    vit = family(name)
    config = timm.data.resolve_model_data_config(vit)
    found = describe(vit, name, WeightsSource.MEMORY, None).preprocessing
    assert found.image_size == tuple(vit.patch_embed.img_size)
    assert found.interpolation == config["interpolation"]
    assert found.crop_mode == config["crop_mode"]
    np.testing.assert_allclose(found.mean, config["mean"])
    np.testing.assert_allclose(found.std, config["std"])
    assert found.resize == tuple(int(np.floor(side / config["crop_pct"])) for side in found.image_size)


def test_a_model_in_training_mode_is_described_in_inference_mode() -> None:
    loaded = describe(small_vit().train(), "mine", WeightsSource.MEMORY, None)
    assert not loaded.vit.training


def test_loaded_models_are_values() -> None:
    loaded = describe(small_vit(), "mine", WeightsSource.MEMORY, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.info.name = "another"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["test_vit", demo.NAME])
def test_a_weights_file_brings_how_it_was_trained(tmp_path: Path, name: str) -> None:
    plain = load_model(name, RANDOM)
    assert plain.training is None and not plain.weights.trained_sparse
    path = tmp_path / "weights.safetensors"
    said = '{"score": "mean", "prune_at": 1, "low": 0.3, "high": 1.0}'
    save_file(dict(plain.vit.state_dict()), path, {TRAINING_KEY: said})
    loaded = load_model(name, WeightsRequest(WeightsSource.FILE, path))
    assert loaded.training == SparseTraining(Score.MEAN, 1, 0.3, 1.0)
    assert loaded.weights.trained_sparse
    assert loaded.weights.sha256 == plain.weights.sha256
    save_file(dict(plain.vit.state_dict()), path, {TRAINING_KEY: "nonsense"})
    with pytest.raises(ModelError, match="has training metadata that cannot be understood"):
        load_model(name, WeightsRequest(WeightsSource.FILE, path))
    save_weights(plain.vit, path)
    loaded = load_model(name, WeightsRequest(WeightsSource.FILE, path))
    assert loaded.training is None and not loaded.weights.trained_sparse


@pytest.mark.parametrize("name", ["test_vit", demo.NAME])
def test_a_weights_file_brings_the_names_of_its_classes(tmp_path: Path, name: str) -> None:
    plain = load_model(name, RANDOM)
    path = tmp_path / "weights.safetensors"
    request = WeightsRequest(WeightsSource.FILE, path)
    save_file(dict(plain.vit.state_dict()), path)
    assert load_model(name, request).info.labels is None
    names = tuple(f"class of {index}" for index in range(plain.info.classes))
    for training in (None, SparseTraining(Score.MEAN, 1, 0.3, 1.0)):
        save_file(dict(plain.vit.state_dict()), path, metadata_of(training, names))
        loaded = load_model(name, request)
        assert loaded.info.labels == names
        assert loaded.training == training
        assert loaded.weights.sha256 == plain.weights.sha256
    save_file(dict(plain.vit.state_dict()), path, metadata_of(None, names[1:]))
    with pytest.raises(ModelError) as refused:
        load_model(name, request)
    assert refused.value.message == f"weights {path} name {len(names) - 1} classes, and have {len(names)}"
    assert refused.value.hint


def test_names_of_classes_need_a_head() -> None:
    with pytest.raises(ModelError, match="name 2 classes, and have 0"):
        describe(small_vit(num_classes=0), "mine", WeightsSource.MEMORY, None, class_names=("a", "b"))


def test_a_description_says_how_weights_in_memory_were_trained() -> None:
    training = SparseTraining(Score.CLS, 1, 0.2, 0.8)
    loaded = describe(small_vit(), "mine", WeightsSource.MEMORY, None, training)
    assert loaded.training == training
    assert loaded.weights.trained_sparse


def test_the_demonstration_model_sees_the_same_pixels_whatever_its_weights() -> None:
    assert load_model(demo.NAME, RANDOM).preprocessing == load_model(demo.NAME, DEMO).preprocessing
