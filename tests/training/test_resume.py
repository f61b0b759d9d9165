"""A training that ended in any way goes on from its last whole epoch, bit for bit, or says why it cannot."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sait_deploy.errors import InvalidArgument, TrainingError
from sait_deploy.tokens import Score
from sait_deploy.training.options import (
    Alternation,
    Augmentation,
    DensityRange,
    Head,
    MassRange,
)
from sait_deploy.training.state import CURVE_FILE, LOG_CSV, LOG_JSON, STATE_FILE, WEIGHTS_FILE, read_state, save_state
from sait_deploy.training.train import train
from tests.training.small import (
    EPOCHS,
    TEACHER,
    VARIANTS,
    assert_same_weights,
    options,
    quiet,
    run,
    small_model,
    squares,
    untimed,
    weights_of,
)


class Interrupted(Exception):
    """What ends a training from outside."""


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_seed_gives_the_same_bits_interrupted_or_not(folder: Path, tmp_path: Path, name: str) -> None:
    """The interruption comes when an epoch is trained and validated, but not yet saved."""
    whole = run(name, folder, tmp_path / "whole")
    torch.manual_seed(1234)  # whatever was drawn before has no part in it
    torch.rand(7)

    def interrupt(line: str) -> None:
        if line.startswith("epoch 2 of 3"):
            raise Interrupted

    with pytest.raises(Interrupted):
        run(name, folder, tmp_path / "cut", interrupt)
    left = read_state(tmp_path / "cut")
    assert left is not None and left.epochs == 1
    lines: list[str] = []
    resumed = run(name, folder, tmp_path / "cut", lines.append)
    assert lines[0] == "resumed after epoch 1 of 3"
    assert_same_weights(weights_of(resumed), weights_of(whole))
    assert (tmp_path / "cut" / WEIGHTS_FILE).read_bytes() == (tmp_path / "whole" / WEIGHTS_FILE).read_bytes()
    assert untimed(resumed.log) == untimed(whole.log)


def test_a_finished_training_started_again_does_nothing(folder: Path, tmp_path: Path) -> None:
    first = run("average", folder, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    lines: list[str] = []
    again = run("average", folder, tmp_path, lines.append)
    assert lines == ["resumed after epoch 3 of 3"]
    assert again == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_crash_left_undelivered_is_delivered_at_the_next_start(folder: Path, tmp_path: Path) -> None:
    run("plain", folder, tmp_path)
    before = (tmp_path / WEIGHTS_FILE).read_bytes()
    for name in (WEIGHTS_FILE, LOG_CSV, LOG_JSON, CURVE_FILE):
        (tmp_path / name).unlink()
    (tmp_path / f".{WEIGHTS_FILE}.partial").write_bytes(b"half")
    run("plain", folder, tmp_path)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == before
    assert len(json.loads((tmp_path / LOG_JSON).read_text())) == EPOCHS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"recipe": {"learning_rate": 1e-3}}, "its recipe.learning_rate is 0.002, not 0.001"),
        ({"recipe": {"epochs": 4}}, "its recipe.epochs is 3, not 4"),
        ({"densities": DensityRange(0.5, 1.0)}, "its densities.low is 0.3, not 0.5"),
        ({"masses": MassRange(0.5, 0.9)}, "its masses.low is none, not 0.5"),
        ({"score": Score.CLS}, "its score is mean, not cls"),
        ({"prune_at": 1}, "its prune_at is 0, not 1"),
        ({"alternation": Alternation.EPOCH}, "its alternation is batch, not epoch"),
        ({"augmentation": Augmentation.LIGHT}, "its data.augmentation is none, not light"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_another_training_in_the_same_folder_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    train(small_model(), None, options(folder, tmp_path), quiet)
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(InvalidArgument) as refused:
        train(small_model(), None, options(folder, tmp_path, **change), quiet)
    assert refused.value.message == f"{tmp_path} holds another training: {named}"
    assert "--output" in refused.value.hint
    assert (tmp_path / STATE_FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("masses", "named"),
    [
        (None, "its masses.low is 0.5, not none"),
        (MassRange(0.6, 0.9), "its masses.low is 0.5, not 0.6"),
        (MassRange(0.5, 0.8), "its masses.high is 0.9, not 0.8"),
    ],
    ids=str,
)
def test_other_masses_in_the_folder_of_a_training_that_drew_some_are_refused(
    folder: Path, tmp_path: Path, masses: MassRange | None, named: str
) -> None:
    train(small_model(), None, options(folder, tmp_path, masses=MassRange(0.5, 0.9)), quiet)
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(InvalidArgument) as refused:
        train(small_model(), None, options(folder, tmp_path, masses=masses), quiet)
    assert refused.value.message == f"{tmp_path} holds another training: {named}"
    assert "--output" in refused.value.hint
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_another_model_teacher_or_data_in_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    chosen = options(folder, tmp_path / "out")
    train(small_model(), None, chosen, quiet)
    with pytest.raises(InvalidArgument, match="its first weights is"):
        train(small_model(seed=1), None, chosen, quiet)
    with pytest.raises(InvalidArgument, match="its teacher is none"):
        train(small_model(), TEACHER, chosen, quiet)
    other = squares(tmp_path / "other", 8, 2)
    with pytest.raises(InvalidArgument, match=r"its data\.source is"):
        train(small_model(), None, options(other, tmp_path / "out"), quiet)


def test_images_added_between_two_starts_are_noticed(tmp_path: Path) -> None:
    root = squares(tmp_path / "data", 4, 2)
    chosen = options(root, tmp_path / "out", recipe={"batch": 4})
    train(small_model(), None, chosen, quiet)
    before = (tmp_path / "out" / STATE_FILE).read_bytes()
    shutil.copy(root / "train" / "red" / "000.png", root / "train" / "red" / "more.png")
    with pytest.raises(InvalidArgument, match="its number of training images is 12, not 13"):
        train(small_model(), None, chosen, quiet)
    (root / "train" / "red" / "more.png").unlink()
    for part in ("train", "val"):
        (root / part / "green").rename(root / part / "lime")
    with pytest.raises(InvalidArgument, match="its class 1 is green, not lime"):
        train(small_model(), None, chosen, quiet)
    assert (tmp_path / "out" / STATE_FILE).read_bytes() == before


@pytest.mark.parametrize("missing", ["number of training images", "number of classes", "class 2", "seed"])
def test_a_state_that_does_not_say_something_is_refused(folder: Path, tmp_path: Path, missing: str) -> None:
    chosen = options(folder, tmp_path, recipe={"epochs": 1})
    train(small_model(), None, chosen, quiet)
    state = read_state(tmp_path)
    assert state is not None
    del state.identity[missing]
    save_state(tmp_path, state)
    with pytest.raises(InvalidArgument, match=f"its {missing} is none, not"):
        train(small_model(), None, chosen, quiet)


def test_a_class_that_went_to_another_is_noticed(tmp_path: Path) -> None:
    """As many images, of the first two classes that there were."""
    root = squares(tmp_path / "data", 4, 2)
    chosen = options(root, tmp_path / "out", recipe={"batch": 4}, head=Head.NEW)
    train(small_model(), None, chosen, quiet)
    for part in ("train", "val"):
        for image in (root / part / "red").iterdir():
            image.rename(root / part / "green" / f"more{image.name}")
        (root / part / "red").rmdir()
    with pytest.raises(InvalidArgument, match="its number of classes is 3, not 2"):
        train(small_model(), None, chosen, quiet)


def test_workers_may_differ_from_start_to_start(folder: Path, tmp_path: Path) -> None:
    train(small_model(), None, options(folder, tmp_path), quiet)
    chosen = options(folder, tmp_path)
    chosen = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, workers=1))
    train(small_model(), None, chosen, quiet)


def test_a_block_that_is_named_is_the_default_by_its_number(folder: Path, tmp_path: Path) -> None:
    train(small_model(), None, options(folder, tmp_path), quiet)
    train(small_model(), None, options(folder, tmp_path, prune_at=0), quiet)


def test_a_damaged_state_is_not_trained_over(folder: Path, tmp_path: Path) -> None:
    run("plain", folder, tmp_path)
    (tmp_path / STATE_FILE).write_bytes((tmp_path / STATE_FILE).read_bytes()[:1000])
    with pytest.raises(TrainingError, match="is no whole training state"):
        run("plain", folder, tmp_path)
    assert (tmp_path / STATE_FILE).stat().st_size == 1000
