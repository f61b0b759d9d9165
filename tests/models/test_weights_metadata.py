"""The training metadata of a weights file: how it was pruned, and the names of its classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sait_deploy.errors import ModelError
from sait_deploy.models.weights import (
    TRAINING_KEY,
    SparseTraining,
    metadata_of,
    read_class_names,
    read_state_dict,
    read_training,
)
from sait_deploy.tokens import Score
from tests.tiny import assert_same, some_tensors

SAID = '{"score": "cls", "prune_at": 3, "low": 0.25, "high": 0.75}'


def saying(folder: Path, text: str) -> Path:
    """A weights file that says so of its training."""
    save_file(some_tensors(), folder / "w.safetensors", {"format": "pt", TRAINING_KEY: text})
    return folder / "w.safetensors"


def test_a_file_says_how_it_was_trained_sparse(tmp_path: Path) -> None:
    assert read_training(saying(tmp_path, SAID)) == SparseTraining(Score.CLS, 3, 0.25, 0.75)
    assert read_class_names(tmp_path / "w.safetensors") is None
    assert_same(read_state_dict(tmp_path / "w.safetensors").tensors, some_tensors())


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"sait_deploy": SAID}])
def test_a_file_that_says_nothing_of_its_training(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file(some_tensors(), tmp_path / "w.safetensors", metadata)
    assert read_training(tmp_path / "w.safetensors") is None
    assert read_class_names(tmp_path / "w.safetensors") is None


@pytest.mark.parametrize("training", [None, SparseTraining(Score.MEAN, 0, 0.1, 1.0)])
def test_a_file_names_its_classes(tmp_path: Path, training: SparseTraining | None) -> None:
    names = ("red", 'a "square"', "été", "猫\u3000", "می\u200cشود")
    save_file(some_tensors(), tmp_path / "w.safetensors", metadata_of(training, names))
    assert read_class_names(tmp_path / "w.safetensors") == names
    assert read_training(tmp_path / "w.safetensors") == training
    assert_same(read_state_dict(tmp_path / "w.safetensors").tensors, some_tensors())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1), min_size=1, max_size=20))
def test_any_names_without_control_characters_come_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "named.safetensors"
    save_file(some_tensors(), path, metadata_of(None, names))
    assert read_class_names(path) == tuple(names)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def test_files_of_other_kinds_say_nothing_of_their_training(checkpoint: Path, tmp_path: Path) -> None:
    torch.save(some_tensors(), checkpoint)
    torch.save({"state_dict": some_tensors(), TRAINING_KEY: SAID}, tmp_path / "w.bin")
    assert read_training(checkpoint) is None
    assert read_training(tmp_path / "w.bin") is None
    assert read_class_names(tmp_path / "w.bin") is None
    assert read_training(tmp_path / "nowhere.safetensors") is None
    assert read_training(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff" * 100, (1 << 60).to_bytes(8, "little") + b"{}"])
def test_damage_is_left_for_who_reads_the_weights(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert read_training(path) is None
    with pytest.raises(ModelError, match=r"no whole safetensors file|is empty"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "[]",
        "null",
        "{}",
        "3",
        '"cls"',
        SAID.replace("cls", "most"),
        SAID.replace("3,", '"third",'),
        SAID.replace("3,", "null,"),
        SAID.replace("3,", "Infinity,"),
        SAID.replace("0.25", "[]"),
        SAID.replace('"high": 0.75', '"higher": 0.75'),
        SAID.replace("}", ', "classes": "cat"}'),
        SAID.replace("}", ', "classes": null}'),
        SAID.replace("0.75", '7, "classes": ["cat"]'),
        '{"classes": []}',
        '{"classes": [""]}',
        '{"classes": 3}',
        '{"classes": {"cat": 0}}',
        '{"classes": ["cat", 3]}',
        '{"classes": ["cat", null]}',
        '{"classes": ["cat\\u001b[31m"]}',
        '{"classes": ["cat\\n"]}',
        '{"classes": ["\\ud800"]}',
        '{"classes": ["cat"], "prune_at": 3}',
        '["classes"]',
        "[" * 100_000,
    ],
    ids=lambda text: str(text)[:40],
)
def test_what_cannot_be_understood_of_a_training_is_refused(tmp_path: Path, text: str) -> None:
    path = saying(tmp_path, text)
    for read in (read_training, read_class_names):
        with pytest.raises(ModelError) as refused:
            read(path)
        assert refused.value.message == f"weights file {path} has training metadata that cannot be understood"
        assert refused.value.hint


MASSES = SAID.replace("}", ', "low_mass": 0.5, "high_mass": 0.9}')


def test_a_file_says_which_masses_were_drawn(tmp_path: Path) -> None:
    assert read_training(saying(tmp_path, MASSES)) == SparseTraining(Score.CLS, 3, 0.25, 0.75, 0.5, 0.9)


@pytest.mark.parametrize("masses", [{}, {"low_mass": None}, {"high_mass": None}, {"low_mass": None, "high_mass": None}])
def test_a_file_of_a_training_that_drew_no_masses(tmp_path: Path, masses: dict[str, None]) -> None:
    path = saying(tmp_path, json.dumps({**json.loads(SAID), **masses}))
    assert read_training(path) == SparseTraining(Score.CLS, 3, 0.25, 0.75)


@pytest.mark.parametrize("masses", [(), (0.7, 0.98), (0.9, 0.9)])
def test_masses_come_back_as_they_were_written(tmp_path: Path, masses: tuple[float, ...]) -> None:
    training = SparseTraining(Score.MEAN, 2, 0.3, 1.0, *masses)
    save_file(some_tensors(), tmp_path / "w.safetensors", metadata_of(training, ["cat"]))
    assert read_training(tmp_path / "w.safetensors") == training
    assert read_class_names(tmp_path / "w.safetensors") == ("cat",)


@pytest.mark.parametrize(
    "masses",
    [
        {"low_mass": 0.5},
        {"high_mass": 0.9},
        {"low_mass": None, "high_mass": 0.9},
        {"low_mass": 0.5, "high_mass": None},
        {"low_mass": 0.0, "high_mass": 0.9},
        {"low_mass": -0.5, "high_mass": 0.9},
        {"low_mass": 0.5, "high_mass": 1.0},
        {"low_mass": 0.9, "high_mass": 0.5},
        {"low_mass": float("nan"), "high_mass": 0.9},
        {"low_mass": 0.5, "high_mass": float("inf")},
        {"low_mass": "half", "high_mass": 0.9},
        {"low_mass": 0.5, "high_mass": [0.9]},
        {"low_mass": {}, "high_mass": 0.9},
        {"low_mass": 0.5, "high_mass": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("classes", [{}, {"classes": ["cat"]}], ids=["unnamed", "named"])
def test_masses_that_cannot_be_understood_are_refused(
    tmp_path: Path, masses: dict[str, Any], classes: dict[str, Any]
) -> None:
    path = saying(tmp_path, json.dumps({**json.loads(SAID), **masses, **classes}))
    for read in (read_training, read_class_names):
        with pytest.raises(ModelError) as refused:
            read(path)
        assert refused.value.message == f"weights file {path} has training metadata that cannot be understood"
        assert refused.value.hint


@pytest.mark.parametrize("name", ["low_mass", "high_mass"])
def test_masses_of_no_pruning_are_refused(tmp_path: Path, name: str) -> None:
    path = saying(tmp_path, json.dumps({"classes": ["cat"], name: 0.5}))
    with pytest.raises(ModelError, match="cannot be understood"):
        read_training(path)
