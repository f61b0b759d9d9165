"""A model's tensors are found in checkpoints of every wrapping, by the model's own names, and what is beside them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import ModelError
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from tests.tiny import assert_same, randomised


@pytest.fixture(scope="module")
def trained() -> VisionTransformer:
    """A test_vit of 5 classes."""
    return randomised(timm.create_model("test_vit", num_classes=5))


@pytest.fixture(scope="module")
def other() -> VisionTransformer:
    """Another one."""
    return randomised(timm.create_model("test_vit", num_classes=5), seed=1)


def under(prefix: str, vit: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in vit.state_dict().items()}


def load(path: Path, content: Any) -> LoadedModel:
    torch.save(content, path / "w.pth")
    return load_model("test_vit", WeightsRequest(WeightsSource.FILE, path / "w.pth"))


PREFIXES = [
    "backbone.",
    "net.",
    "timm_model.",
    "encoder.",
    "module.",
    "model.",
    "module.backbone.",
    "my_project.vision.tower.",
    "visual.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "student_weights"])
def test_any_prefix_is_found_by_the_models_names(
    tmp_path: Path, trained: VisionTransformer, prefix: str, wrapper: str | None
) -> None:
    tensors = under(prefix, trained)
    loaded = load(tmp_path, tensors if wrapper is None else {"epoch": 3, wrapper: tensors})
    assert_same(dict(loaded.vit.state_dict()), dict(trained.state_dict()))
    assert loaded.weights.notes == ()


@pytest.mark.parametrize(
    "extra",
    [
        {"criterion.weight": torch.ones(5)},
        {"loss_fn.weight": torch.ones(5)},
        {"n_averaged": torch.tensor(7)},
        {"decoder_pos_embed": torch.ones(1, 5, 7)},
    ],
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_what_only_training_reads_is_left_out_and_said(
    tmp_path: Path, trained: VisionTransformer, extra: dict[str, Tensor], prefix: str
) -> None:
    loaded = load(tmp_path, {**under(prefix, trained), **extra})
    assert_same(dict(loaded.vit.state_dict()), dict(trained.state_dict()))
    assert loaded.weights.notes == (f"weights w.pth: {next(iter(extra))} left out, being no part of the model",)


def test_weights_averaged_by_torch_are_read(tmp_path: Path, trained: VisionTransformer) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(trained)
    loaded = load(tmp_path, averaged.state_dict())
    assert_same(dict(loaded.vit.state_dict()), dict(trained.state_dict()))


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.lora_a", "prompt_tokens", "norm_pre.weight", "reg_token"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_what_would_change_the_answer_is_not_left_out(
    tmp_path: Path, trained: VisionTransformer, name: str, prefix: str
) -> None:
    with pytest.raises(ModelError, match=f"{name} is not the model's"):
        load(tmp_path, {**under(prefix, trained), prefix + name: torch.ones(1, 2, 64)})


def test_of_teacher_and_student_the_teacher_is_read(
    tmp_path: Path, trained: VisionTransformer, other: VisionTransformer
) -> None:
    heads = {"head.mlp.0.weight": torch.ones(8, 64), "head.mlp.0.bias": torch.ones(8)}
    backbone = {name: t for name, t in under("backbone.", trained).items() if "head" not in name}
    student = {name: t for name, t in under("module.backbone.", other).items() if "head" not in name}
    loaded = load(tmp_path, {"student": student, "teacher": {**backbone, **heads}, "optimizer": {"state": {0: {}}}})
    assert loaded.info.classes == 0
    assert torch.equal(loaded.vit.state_dict()["pos_embed"], trained.state_dict()["pos_embed"])
    assert loaded.weights.notes == (
        "weights w.pth: teacher.backbone is read; student.module.backbone would fit too",
        "weights w.pth: head.mlp.0.weight, head.mlp.0.bias left out, being no part of the model",
        "weights w.pth: no head is among them, so the model returns features, not classes",
    )


def test_the_average_among_prefixes_is_preferred(
    tmp_path: Path, trained: VisionTransformer, other: VisionTransformer
) -> None:
    loaded = load(tmp_path, {**under("net.", other), **under("ema.module.", trained)})
    assert_same(dict(loaded.vit.state_dict()), dict(trained.state_dict()))


@pytest.mark.parametrize(
    "places",
    [
        lambda plain, average: {"state_dict": plain, "ema_state_dict": average},
        lambda plain, average: {"state_dict": plain, "callbacks": {"EMA": {"weights": average}}},
        lambda plain, average: {"model": plain, "averaged_model": {**average, "n_averaged": torch.tensor(3)}},
        lambda plain, average: {"net": plain, "net_ema": average},
    ],
)
def test_an_average_is_known_by_a_word_of_its_key(
    tmp_path: Path,
    trained: VisionTransformer,
    other: VisionTransformer,
    places: Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Any]],
) -> None:
    loaded = load(tmp_path, places(under("", other), under("", trained)))
    assert_same(dict(loaded.vit.state_dict()), dict(trained.state_dict()))


def test_an_average_without_names_is_not_the_model(tmp_path: Path, trained: VisionTransformer) -> None:
    unnamed = {"decay": 0.9, "shadow_params": list(trained.state_dict().values())}
    loaded = load(tmp_path, {"ema": unnamed, "state_dict": under("", trained)})
    assert_same(dict(loaded.vit.state_dict()), dict(trained.state_dict()))


def test_a_teacher_of_another_size_is_not_the_model(tmp_path: Path, trained: VisionTransformer) -> None:
    larger = timm.create_model("test_vit2", num_classes=5)
    loaded = load(tmp_path, {**under("student.", trained), **under("teacher.", larger)})
    assert_same(dict(loaded.vit.state_dict()), dict(trained.state_dict()))


def test_a_teacher_of_other_classes_than_its_student_is_refused(tmp_path: Path, trained: VisionTransformer) -> None:
    teacher = timm.create_model("test_vit", num_classes=9)
    with pytest.raises(ModelError, match="holds several models: teacher, student"):
        load(tmp_path, {"student": under("", trained), "teacher": under("", teacher)})


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(tmp_path: Path, trained: VisionTransformer, kind: torch.dtype) -> None:
    with pytest.raises(ModelError, match="quantised weights mean nothing without their scales"):
        load(tmp_path, {name: tensor.to(kind) for name, tensor in under("", trained).items()})


@pytest.mark.parametrize(("name", "said"), [("head.1.weight", "in Python"), ("patch_embed.proj.weight", "in_chans=3")])
def test_advice_is_of_what_does_not_fit(tmp_path: Path, trained: VisionTransformer, name: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(tmp_path, {**under("", trained), name: torch.ones(64, 2, 16, 16)})
    assert said in caught.value.hint


def test_two_models_of_equal_standing_are_refused(
    tmp_path: Path, trained: VisionTransformer, other: VisionTransformer
) -> None:
    with pytest.raises(ModelError, match="holds several models: base_encoder, momentum_encoder"):
        load(tmp_path, {**under("base_encoder.", trained), **under("momentum_encoder.", other)})


@pytest.mark.parametrize("name", ["head", "fc", "classifier", "head.fc"])
@pytest.mark.parametrize("outer", ["", "module."])
def test_a_linear_layer_beside_the_model_is_its_head(
    tmp_path: Path, trained: VisionTransformer, name: str, outer: str
) -> None:
    """What a class with a backbone and a head of its own saves, against that class's answer."""
    backbone, head = timm.create_model("test_vit", num_classes=0), nn.Linear(64, 5)
    own = trained.state_dict()
    backbone.load_state_dict({key: own[key] for key in backbone.state_dict()})
    head.load_state_dict({"weight": own["head.weight"], "bias": own["head.bias"]})
    loaded = load(tmp_path, {**under(f"{outer}backbone.", backbone), **under(f"{outer}{name}.", head)})
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(loaded.vit(images), head(backbone.eval()(images)))
    (note,) = loaded.weights.notes
    assert f"{outer}{name}, beside {outer}backbone, is read as the model's head" in note


def test_wrappers_of_single_blocks_come_off(tmp_path: Path, trained: VisionTransformer) -> None:
    names = {name.replace("blocks.0.", "blocks.0._orig_mod."): t for name, t in trained.state_dict().items()}
    assert_same(dict(load(tmp_path, names).vit.state_dict()), dict(trained.state_dict()))


def test_dictionaries_that_hold_each_other_end(tmp_path: Path) -> None:
    dictionaries: list[dict[str, Any]] = [{} for _ in range(12)]
    for one in dictionaries:
        one.update({str(number): another for number, another in enumerate(dictionaries)})
    with pytest.raises(ModelError, match="no tensors"):
        load(tmp_path, dictionaries[0])


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("vision_model.encoder.layers.0.self_attn.q_proj.weight", "Hugging Face's CLIP or SigLIP"),
        ("encoder.layers.encoder_layer_0.self_attention.in_proj_weight", "torchvision"),
    ],
)
def test_layouts_that_are_not_read_are_named_with_names_of_both_sides(tmp_path: Path, name: str, layout: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(tmp_path, {name: torch.ones(2, 2)})
    assert layout in caught.value.hint
    assert f"{name} is not the model's" in caught.value.message
    assert "cls_token is missing" in caught.value.message


def test_export_says_what_it_read_and_left_out(tmp_path: Path, trained: VisionTransformer) -> None:
    torch.save({**trained.state_dict(), "criterion.weight": torch.ones(5)}, tmp_path / "w.pth")
    command = ["export", "--model", "test_vit", "--weights", "w.pth", "--dense", "-o", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "sait_deploy", *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("criterion.weight left out") == 1
    (manifest,) = tmp_path.glob("out/*/manifest.json")
    assert "criterion.weight left out" in manifest.read_text()
