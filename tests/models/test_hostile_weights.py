"""Weights files that are damaged, hostile or none at all: refused in a line, and no code in them runs."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sait_deploy.errors import ModelError
from sait_deploy.models.weights import read_state_dict
from tests.tiny import small_vit, some_tensors


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_not_run(checkpoint: Path, zipped: bool, protocol: int) -> None:
    marker = checkpoint.parent / "it-ran"
    torch.save(
        {"model": some_tensors(), "extra": Marker(marker)},
        checkpoint,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(ModelError) as caught:
        read_state_dict(checkpoint)
    assert not marker.exists()
    assert "run code" in caught.value.message
    assert "safetensors" in caught.value.hint


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_bare_pickle_is_not_run_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it-ran"
    (tmp_path / name).write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(ModelError):
        read_state_dict(tmp_path / name)
    assert not marker.exists()


def test_a_whole_module_is_not_unpickled(checkpoint: Path) -> None:
    torch.save(small_vit(), checkpoint)
    with pytest.raises(ModelError, match="run code"):
        read_state_dict(checkpoint)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0", b"garbage" * 50, b"PK\x03\x04" + b"\0" * 40, b"\x80\x02.", b"{}"])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_state_dict(tmp_path / name)
    assert name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    whole = tmp_path / f"whole-{name}"
    if name.endswith("safetensors"):
        save_file(some_tensors(), whole)
    else:
        torch.save(some_tensors(), whole)
    data = whole.read_bytes()
    for end in sorted({*range(0, len(data), max(1, len(data) // 60)), len(data) - 1}):
        (tmp_path / name).write_bytes(data[:end])
        with pytest.raises(ModelError):
            read_state_dict(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_changed_bytes_are_refused_or_read_and_never_crash(tmp_path: Path, kind: str) -> None:
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(some_tensors(), file)
    elif kind == "pickle":
        file.write_bytes(b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u.")
    else:
        torch.save(some_tensors(), file, _use_new_zipfile_serialization=kind == "zip")
    data, draw = file.read_bytes(), random.Random(kind)
    refused = 0
    for _ in range(250):
        changed = bytearray(data)
        for _ in range(draw.choice([1, 2, 5])):
            changed[draw.randrange(min(len(data), 900))] = draw.randrange(256)
        file.write_bytes(changed)
        try:
            assert read_state_dict(file).tensors
        except ModelError as error:
            refused += 1
            assert "\n" not in error.message
    assert refused > 0


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), 7, "text", None])
def test_what_is_no_dictionary_is_refused(checkpoint: Path, content: object) -> None:
    torch.save(content, checkpoint)
    with pytest.raises(ModelError, match=f"holds a {type(content).__name__}, not a state dict"):
        read_state_dict(checkpoint)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {}}, {"state_dict": {"a": 1}}])
def test_a_dictionary_without_tensors_is_refused(checkpoint: Path, content: object) -> None:
    torch.save(content, checkpoint)
    with pytest.raises(ModelError, match="no tensors"):
        read_state_dict(checkpoint)


def test_a_wrapper_that_holds_itself_ends(checkpoint: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, checkpoint)
    with pytest.raises(ModelError):
        read_state_dict(checkpoint)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "folder/none.pth"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_state_dict(tmp_path / name)


def test_advice_about_pickles_stays_off_the_screen(checkpoint: Path, recwarn: pytest.WarningsRecorder) -> None:
    checkpoint.write_bytes(pickle.dumps({"model": os.system}, protocol=4))
    with pytest.raises(ModelError, match="could run code"):
        read_state_dict(checkpoint)
    assert not recwarn.list
