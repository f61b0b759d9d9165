"""Options of a training: what they default to, and numbers that cannot be meant."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.errors import InvalidArgument
from sait_deploy.training.options import (
    Alternation,
    DataOptions,
    DensityRange,
    Distillation,
    MassRange,
    Recipe,
    TrainOptions,
    parse_density_range,
    parse_mass_range,
)

WRONG: list[tuple[type, dict[str, Any], str]] = [
    (Recipe, {"epochs": 0, "warmup_epochs": 0.0}, "number of epochs 0"),
    (Recipe, {"batch": 0}, "batch 0"),
    (Recipe, {"learning_rate": 0.0}, "learning rate 0.0"),
    (Recipe, {"learning_rate": math.nan}, "learning rate nan"),
    (Recipe, {"learning_rate": math.inf}, "learning rate inf"),
    (Recipe, {"learning_rate": "fast"}, "learning rate 'fast'"),
    (Recipe, {"weight_decay": -0.1}, "weight decay -0.1"),
    (Recipe, {"layer_decay": 0.0}, "layer decay 0.0"),
    (Recipe, {"layer_decay": 1.1}, "layer decay 1.1"),
    (Recipe, {"epochs": 2, "warmup_epochs": 3.0}, "number of warm-up epochs 3.0"),
    (Recipe, {"least_learning_rate": 1.0}, "least learning rate 1.0"),
    (Recipe, {"label_smoothing": 1.0}, "label smoothing 1.0"),
    (Recipe, {"mixup": -1.0}, "mixup -1.0"),
    (Recipe, {"cutmix": math.inf}, "cutmix inf"),
    (Recipe, {"drop_path": 1.0}, "drop path rate 1.0"),
    (Recipe, {"clip": 0.0}, "gradient norm 0.0"),
    (Recipe, {"ema_decay": 1.5}, "decay of averaged weights 1.5"),
    (DataOptions, {"workers": -1}, "number of workers -1"),
    (DataOptions, {"epoch_images": 0}, "number of images per epoch 0"),
    (DataOptions, {"validation_images": 0}, "number of validation images 0"),
    (Distillation, {"logits": -1.0}, "distillation weight of logits -1.0"),
    (Distillation, {"importance": math.nan}, "distillation weight of importance nan"),
    (Distillation, {"temperature": 0.0}, "temperature 0.0"),
    (Distillation, {"teacher_blocks": 0}, "number of the teacher's blocks 0"),
    (TrainOptions, {"output": Path("x"), "seed": -1}, "seed -1"),
    (TrainOptions, {"output": Path("x"), "seed": 2**31}, "seed 2147483648"),
]


@pytest.mark.parametrize(("kind", "values", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_a_number_that_cannot_be_meant_is_named_with_its_limits(
    kind: type, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        kind(**values)
    assert refused.value.message.startswith(message)
    assert "give a number" in refused.value.hint


def test_defaults_alternate_by_batch_and_can_be_made() -> None:
    options = TrainOptions(Path("out"))
    assert options.alternation is Alternation.BATCH
    assert (options.densities.low, options.densities.high) == (0.3, 1.0)
    assert options.masses is None
    assert (MassRange().low, MassRange().high) == (0.7, 0.98)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("none", ["clip", "ema_decay"])
def test_what_can_be_left_out(none: str) -> None:
    assert getattr(Recipe(**dict[str, Any]({none: None})), none) is None


Parse = Callable[[str], DensityRange | MassRange]
RANGES = [("density", parse_density_range, "0.3:1.0"), ("mass", parse_mass_range, "0.7:0.98")]


@given(st.floats(1e-3, 1.0), st.floats(1e-3, 1.0))
def test_a_range_that_is_written_is_read(low: float, high: float) -> None:
    low, high = sorted((round(low, 4), round(high, 4)))
    assert parse_density_range(f" {low:f} : {high:f} ") == DensityRange(low, high)
    if high < 1:
        assert parse_mass_range(f" {low:f} : {high:f} ") == MassRange(low, high)


@pytest.mark.parametrize(
    "text",
    ["", ":", "0.3", "0.3:", ":0.5", "0.3:0.5:0.7", "a:b", "0,3:0.5", "0.3-0.5", "-0.3:0.5", ".:.", "1..2:1", "nan:1"],
)
@pytest.mark.parametrize(("what", "parse", "example"), RANGES, ids=["density", "mass"])
def test_what_is_no_range_is_quoted(what: str, parse: Parse, example: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(text)
    assert refused.value.message == f"{what} range {text!r} is not LOW:HIGH"
    assert refused.value.hint == f"such as {example}"
    assert parse(example)


@pytest.mark.parametrize("text", ["0:0.5", "0.5:0.3", "0.5:1.1", "2:3"])
@pytest.mark.parametrize(
    ("what", "parse", "within"), [("density", parse_density_range, "(0, 1]"), ("mass", parse_mass_range, "(0, 1)")]
)
def test_a_range_outside_what_there_is(what: str, parse: Parse, within: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(text)
    assert refused.value.message == f"{what} range {text} does not rise within {within}"
    assert "give LOW:HIGH" in refused.value.hint


@pytest.mark.parametrize("text", ["0.5:1", "1:1", "0.7:1.0"])
def test_a_mass_of_one_is_for_dense_steps(text: str) -> None:
    assert parse_density_range(text)
    with pytest.raises(InvalidArgument, match=r"^mass range .*:1 does not rise within \(0, 1\)$"):
        parse_mass_range(text)


@pytest.mark.parametrize("kind", [DensityRange, MassRange])
@pytest.mark.parametrize(("low", "high"), [(math.nan, 0.5), (0.5, math.nan), (0.1, math.inf)])
def test_a_range_of_no_numbers(kind: type[DensityRange | MassRange], low: float, high: float) -> None:
    with pytest.raises(InvalidArgument):
        kind(low, high)
