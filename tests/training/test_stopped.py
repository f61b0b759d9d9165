"""What stops a training: one clear line, and everything before it intact."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import DistributedType
from torch import Tensor

from sait_deploy.errors import ImageError, InvalidArgument, ModelError, StorageError, TrainingError
from sait_deploy.models.registry import LoadedModel
from sait_deploy.models.weights import read_state_dict
from sait_deploy.training.loop import check_parallelism
from sait_deploy.training.options import Amp
from sait_deploy.training.state import LOG_JSON, WEIGHTS_FILE, read_state
from sait_deploy.training.train import train
from tests.training.small import (
    EPOCHS,
    assert_same_weights,
    options,
    quiet,
    small_model,
    squares,
)


def poison(model: LoadedModel, at: int) -> None:
    """Makes a teacher's answers no numbers from its ``at``-th batch on."""
    seen = 0

    def answer(module: torch.nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        return logits * float("nan") if seen >= at else logits

    model.vit.head.register_forward_hook(answer)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(folder: Path, tmp_path: Path) -> None:
    kept: dict[str, Tensor] = {}

    def look(line: str) -> None:
        if line.startswith("epoch 2"):
            kept.update(read_state_dict(tmp_path / WEIGHTS_FILE).tensors)

    teacher = small_model(seed=9)
    poison(teacher, at=6 + 4)
    model = small_model()
    with pytest.raises(TrainingError) as stopped:
        train(model, teacher, options(folder, tmp_path), look)
    assert stopped.value.message == "the loss of batch 4 of epoch 2 is no number"
    left = read_state(tmp_path)
    assert left is not None and left.epochs == 1
    assert all(torch.isfinite(tensor).all() for tensor in left.model.values())
    assert_same_weights(read_state_dict(tmp_path / WEIGHTS_FILE).tensors, left.delivered)
    assert len(json.loads((tmp_path / LOG_JSON).read_text())) == 1


def test_weights_that_hold_infinities(folder: Path, tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.vit.head.weight[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="batch 1 of epoch 1"):
        train(model, None, options(folder, tmp_path), quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_a_last_step_that_ruins_the_weights_is_not_saved(folder: Path, tmp_path: Path, ema_decay: float | None) -> None:
    """Every loss of the epoch is finite, as nobody computes another one after its last step."""
    one_step = {
        "epochs": 3,
        "batch": 48,
        "optimizer": "sgd",
        "learning_rate": 1e38,
        "least_learning_rate": 1e-4,
        "warmup_epochs": 1.0,
        "clip": None,
        "ema_decay": ema_decay,
    }
    model = small_model()
    with torch.no_grad():
        model.vit.head.weight.mul_(1e3)
    with pytest.raises(TrainingError) as stopped:
        train(model, None, options(folder, tmp_path, recipe=one_step), quiet)
    assert stopped.value.message == "weights are no numbers any more at the end of epoch 2"
    left = read_state(tmp_path)
    assert left is not None and left.epochs == 1
    assert all(torch.isfinite(tensor).all() for tensor in (*left.model.values(), *left.delivered.values()))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("part", ["train", "val"])
def test_an_image_that_cannot_be_read_is_named_in_one_line(tmp_path: Path, workers: int, part: str) -> None:
    root = squares(tmp_path / "data", 4, 4)
    broken = root / part / "red" / "001.png"
    broken.write_bytes(broken.read_bytes()[:100])
    chosen = options(root, tmp_path / "out", recipe={"batch": 4})
    chosen = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, workers=workers))
    with pytest.raises(ImageError) as refused:
        train(small_model(), None, chosen, quiet)
    assert refused.value.message.startswith(f"image {broken} ")
    assert "\n" not in refused.value.message
    assert "Traceback" not in refused.value.message
    assert refused.value.hint


def free(folder: Path) -> int:
    import shutil

    return shutil.disk_usage(folder).free


def test_a_full_disk_stops_in_one_line_and_keeps_what_was_there(folder: Path, small_disk: Path) -> None:
    lines: list[str] = []

    def fill(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2 of 3"):
            (small_disk / "filler").write_bytes(bytes(free(small_disk)))

    with pytest.raises(StorageError, match="No space left"):
        train(small_model(), None, options(folder, small_disk / "out"), fill)
    (small_disk / "filler").unlink()
    left = read_state(small_disk / "out")
    assert left is not None and left.epochs == 1
    resumed = train(small_model(), None, options(folder, small_disk / "out"), lines.append)
    assert "resumed after epoch 1 of 3" in lines
    assert len(resumed.log) == EPOCHS


def test_an_output_that_cannot_be_written_is_found_before_training(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    lines: list[str] = []
    with pytest.raises(StorageError, match="cannot write"):
        train(small_model(), None, options(folder, tmp_path / "file"), lines.append)
    assert lines == []


def test_a_teacher_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the teacher has patch grid"):
        train(small_model(), small_model(seed=1, patch_size=16), options(folder, tmp_path), quiet)


def test_a_teacher_that_is_the_model_itself(folder: Path, tmp_path: Path) -> None:
    model = small_model()
    with pytest.raises(InvalidArgument, match="the very model that is trained"):
        train(model, model, options(folder, tmp_path), quiet)


@pytest.mark.parametrize("change", [{"prune_at": 2}, {"prune_at": -1}])
def test_a_block_that_is_not_there(folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="is no block of a model of depth 2"):
        train(small_model(), None, options(folder, tmp_path, **change), quiet)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has it")
def test_half_precision_on_a_processor_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="mixed precision fp16 cannot be had") as refused:
        train(small_model(), None, options(folder, tmp_path, recipe={"amp": Amp.FP16}), quiet)
    assert "--amp" in refused.value.hint
    train(small_model(), None, options(folder, tmp_path), quiet)


@pytest.mark.parametrize("kind", DistributedType)
def test_only_the_images_are_divided_between_processes(kind: DistributedType) -> None:
    if kind is DistributedType.NO or kind.name in ("MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_HPU"):
        check_parallelism(kind, 1)
    elif kind.name in ("DEEPSPEED", "FSDP", "XLA", "MEGATRON_LM"):
        with pytest.raises(InvalidArgument, match=f"several devices by {kind.value} is not supported") as refused:
            check_parallelism(kind, 1)
        assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradients of 4 steps are not added up"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "deepspeed|DEEPSPEED|DeepSpeed"),
    ],
)
def test_what_accelerate_is_told_and_training_does_not_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    lines: list[str] = []
    with monkeypatch.context() as changed:
        changed.setenv(name, value)
        with pytest.raises(InvalidArgument, match=message) as refused:
            train(small_model(), None, options(folder, tmp_path), lines.append)
    assert "accelerate" in refused.value.hint
    assert lines == [] and list(tmp_path.iterdir()) == []
    train(small_model(), None, options(folder, tmp_path, recipe={"epochs": 1}), quiet)
