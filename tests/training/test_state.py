"""What a training leaves: whole or not at all, read back as it was written, and nothing believed that is damaged."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sait_deploy.errors import StorageError, TrainingError
from sait_deploy.models.weights import SparseTraining, read_class_names, read_state_dict, read_training
from sait_deploy.system.locks import held
from sait_deploy.tokens import Score
from sait_deploy.training.log import LogEntry
from sait_deploy.training.state import (
    CURVE_FILE,
    LOG_CSV,
    LOG_JSON,
    STATE_FILE,
    WEIGHTS_FILE,
    TrainingState,
    deliver,
    read_state,
    save_state,
)
from sait_deploy.training.train import train
from tests.training.small import options, small_model, squares

ENTRY = LogEntry(1, 10, 5, 0.7, 5e-5, 2.0, 1.5, 0.25, 0.25, 20.0, 17.5, 0.3, 3.0, 53.3)
TRAINING = SparseTraining(Score.MEAN, 1, 0.3, 1.0)
NAMES = ("cat", 'dog & "hound"', "été", "猫")


def state(epochs: int = 1, *, size: int = 8) -> TrainingState:
    generator = torch.Generator().manual_seed(epochs)
    model = {"a.weight": torch.randn(size, 4, generator=generator), "a.bias": torch.randn(4, generator=generator)}
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in model.values()]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    sum(p.square().sum() for p in parameters).backward()  # type: ignore[union-attr]
    optimizer.step()
    log = tuple(dataclasses.replace(ENTRY, epoch=epoch + 1) for epoch in range(epochs))
    average = {name: tensor / 2 for name, tensor in model.items()}
    return TrainingState({"seed": "0"}, epochs, model, average, optimizer.state_dict(), {"scale": 2.0}, log)


def assert_same(found: TrainingState | None, wanted: TrainingState) -> None:
    assert found is not None
    assert (found.identity, found.epochs, found.log) == (wanted.identity, wanted.epochs, wanted.log)
    assert found.scaler == wanted.scaler
    for some, others in ((found.model, wanted.model), (found.average, wanted.average)):
        assert (some is None) == (others is None)
        assert some is None or all(torch.equal(some[name], tensor) for name, tensor in (others or {}).items())
    assert found.optimizer["param_groups"] == wanted.optimizer["param_groups"]
    for index, moments in wanted.optimizer["state"].items():
        assert all(torch.equal(found.optimizer["state"][index][key], value) for key, value in moments.items())


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    save_state(tmp_path / "new", state())
    assert_same(read_state(tmp_path / "new"), state())
    bare = dataclasses.replace(state(), average=None, scaler=None, epochs=0, log=())
    save_state(tmp_path / "new", bare)
    assert_same(read_state(tmp_path / "new"), bare)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [STATE_FILE]


def test_a_later_state_takes_its_place(tmp_path: Path) -> None:
    save_state(tmp_path, state(1))
    save_state(tmp_path, state(2))
    assert_same(read_state(tmp_path), state(2))


def test_the_average_is_what_is_delivered() -> None:
    whole = state()
    assert whole.delivered is whole.average
    assert dataclasses.replace(whole, average=None).delivered is whole.model


class Shell:
    """A pickle of it would run a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_state_that_is_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    save_state(tmp_path, state())
    whole = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(TrainingError) as refused:
        read_state(tmp_path)
    assert str(tmp_path / STATE_FILE) in refused.value.message
    assert refused.value.message.endswith("is no whole training state"), "torch's own advice is to load without checks"
    assert "\n" not in refused.value.message
    assert "--output" in refused.value.hint


@pytest.mark.parametrize("content", [b"", b"\x80\x02K\x01.", b"no state", b"PK\x03\x04", bytes(1000)])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(TrainingError, match="is no whole training state"):
        read_state(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"log": [], "model": Shell()}, tmp_path / STATE_FILE, _use_new_zipfile_serialization=zipped)
    with pytest.raises(TrainingError):
        read_state(tmp_path)
    (tmp_path / STATE_FILE).write_bytes(pickle.dumps(Shell()))
    with pytest.raises(TrainingError):
        read_state(tmp_path)
    assert not (tmp_path / "hacked").exists()
    assert not recwarn.list, "advice about pickles stays off the screen"


@pytest.mark.parametrize("missing", ["log", "model", "identity", "optimizer"])
def test_a_state_of_another_layout_is_refused(tmp_path: Path, missing: str) -> None:
    save_state(tmp_path, state())
    data = torch.load(tmp_path / STATE_FILE, weights_only=True)
    del data[missing]
    torch.save(data, tmp_path / STATE_FILE)
    with pytest.raises(TrainingError, match="the state is damaged: it has other parts"):
        read_state(tmp_path)


_WRONG: dict[str, list[Any]] = {
    "identity": [None, [], {"a": 1}, {1: "a"}, "x"],
    "epochs": [-1, 1.5, "1", None, True],
    "model": [None, [], {"a": 1}, {1: torch.zeros(1)}, {"a": torch.zeros(1).expand(1000)}],
    "average": [[], {"other": torch.zeros(1)}, {"a": None}],
    "optimizer": [None, [], 1],
    "scaler": [[], 1],
    "log": [None, {}, [1], [{}], [{"epoch": "1"}], 3],
}


@pytest.mark.parametrize(("part", "value"), [(part, value) for part, values in _WRONG.items() for value in values])
def test_a_part_of_another_kind_is_refused(tmp_path: Path, part: str, value: Any) -> None:
    save_state(tmp_path, state())
    data = torch.load(tmp_path / STATE_FILE, weights_only=True)
    del data["sha256"]
    torch.save(data | {part: value}, tmp_path / STATE_FILE)
    with pytest.raises(TrainingError, match="the state is damaged"):
        read_state(tmp_path)


def test_a_number_that_changed_is_noticed(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    data = torch.load(tmp_path / STATE_FILE, weights_only=True)
    next(iter(data["model"].values())).view(-1)[0] += 1
    torch.save(data, tmp_path / STATE_FILE)
    with pytest.raises(TrainingError, match="changed since it was written"):
        read_state(tmp_path)


def test_a_log_of_another_layout_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    data = torch.load(tmp_path / STATE_FILE, weights_only=True)
    data["log"][0]["moon"] = "full"
    del data["sha256"]
    torch.save(data, tmp_path / STATE_FILE)
    with pytest.raises(TrainingError, match="the state is damaged: its log"):
        read_state(tmp_path)


def test_a_state_from_before_logs_told_of_masses_is_read(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    data = torch.load(tmp_path / STATE_FILE, weights_only=True)
    for name in ("mass", "mass_top1"):
        del data["log"][0][name]
    del data["sha256"]  # which those states have not either
    torch.save(data, tmp_path / STATE_FILE)
    found = read_state(tmp_path)
    assert_same(found, state())
    assert found is not None
    masses = dataclasses.replace(TRAINING, low_mass=0.7, high_mass=0.9)
    known = dataclasses.replace(ENTRY, epoch=2, mass_top1=12.5, mass=0.7)
    deliver(tmp_path, dataclasses.replace(found, epochs=2, log=(*found.log, known)), masses, NAMES)
    assert "mass 0.7: 12.5 % at epoch 2." in (tmp_path / CURVE_FILE).read_text()


def test_without_matplotlib_all_but_the_curve_is_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    deliver(tmp_path, state(), None, NAMES)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS_FILE, LOG_CSV, LOG_JSON}


def test_what_is_delivered(tmp_path: Path) -> None:
    whole = state(2)
    deliver(tmp_path, whole, TRAINING, NAMES)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS_FILE, LOG_CSV, LOG_JSON, CURVE_FILE}
    weights = read_state_dict(tmp_path / WEIGHTS_FILE).tensors
    assert whole.average is not None
    assert list(weights) == sorted(whole.average)
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.average.items())
    assert read_training(tmp_path / WEIGHTS_FILE) == TRAINING
    assert read_class_names(tmp_path / WEIGHTS_FILE) == NAMES
    assert [LogEntry(**entry) for entry in json.loads((tmp_path / LOG_JSON).read_text())] == list(whole.log)
    assert len((tmp_path / LOG_CSV).read_text().splitlines()) == 3
    curve = (tmp_path / CURVE_FILE).read_text()
    assert curve.startswith("<svg") and "density 0.3" in curve and "dense" in curve and "mass" not in curve
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(8):
        deliver(tmp_path, whole, TRAINING, NAMES)
        assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}, "the same state, the same bytes"


def test_weights_that_were_never_sparse_name_their_classes_alone(tmp_path: Path) -> None:
    deliver(tmp_path, state(), None, NAMES)
    assert read_training(tmp_path / WEIGHTS_FILE) is None
    assert read_class_names(tmp_path / WEIGHTS_FILE) == NAMES
    assert "density" not in (tmp_path / CURVE_FILE).read_text()


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets this process write no file beyond so many bytes, as a disk with so many left would."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_state_that_cannot_be_written_whole_leaves_the_one_before(tmp_path: Path) -> None:
    save_state(tmp_path, state(1))
    with largest_file(100_000), pytest.raises(StorageError) as refused:
        save_state(tmp_path, state(2, size=20_000))
    assert str(tmp_path / STATE_FILE) in refused.value.message
    assert_same(read_state(tmp_path), state(1))
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_a_full_disk_leaves_state_and_weights_of_the_epoch_before(small_disk: Path) -> None:
    save_state(small_disk, state(1))
    deliver(small_disk, state(1), TRAINING, NAMES)
    before = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    large = state(2, size=70_000)
    with pytest.raises(StorageError, match="No space left"):
        save_state(small_disk, large)
    with pytest.raises(StorageError, match="No space left"):
        deliver(small_disk, dataclasses.replace(large, average=None), TRAINING, NAMES)
    assert {path.name: path.read_bytes() for path in small_disk.iterdir()} == before
    assert_same(read_state(small_disk), state(1))


def test_a_folder_that_another_training_writes_to_is_refused(tmp_path: Path) -> None:
    squares(tmp_path / "images")
    output = tmp_path / "trained"
    output.mkdir()
    with held(output), pytest.raises(TrainingError, match="another process trains into"):
        train(small_model(), None, options(tmp_path / "images", output))
    assert not list(output.iterdir())
