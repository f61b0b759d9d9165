"""The golden file keeps every array as it was, and lacks those that an artifact has not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.golden import Golden, read_golden, write_golden
from sait_deploy.errors import ArtifactError

GOLDEN = Golden(
    pixels=np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
    images=np.linspace(-2, 2, 48, dtype=np.float32).reshape(1, 3, 4, 4),
    logits=np.array([[0.25, -np.inf, np.nan]], np.float32),
    counts=np.array([7], np.int32),
)
FURTHER: dict[str, Any] = {
    "mass": np.array([0.6], np.float32),
    "keep_limits": np.array([[1, 16]], np.int32),
    "token_features": np.ones((1, 17, 4), np.float32),
}

BLOCKS: dict[str, Any] = {
    "block0_features": np.ones((1, 17, 4), np.float32),
    "block11_features": np.zeros((1, 17, 4), np.float32),
    "keep": np.ones((1, 17), np.int32),
}


def arrays_of(golden: Golden) -> dict[str, Any]:
    fields = {field.name: getattr(golden, field.name) for field in dataclasses.fields(golden)}
    further = fields.pop("further")
    return {name: array for name, array in fields.items() if array is not None} | further


@pytest.mark.parametrize("names", [(), ("mass", "keep_limits"), ("token_features",), tuple(FURTHER), tuple(BLOCKS)])
def test_there_and_back(tmp_path: Path, names: tuple[str, ...]) -> None:
    golden = dataclasses.replace(GOLDEN, **{name: FURTHER[name] for name in names if name in FURTHER})
    golden = dataclasses.replace(golden, further={name: BLOCKS[name] for name in names if name in BLOCKS})
    write_golden(tmp_path / "golden.npz", golden)
    with np.load(tmp_path / "golden.npz", allow_pickle=False) as file:
        assert set(file.files) == {"pixels", "images", "logits", "counts", *names}
    found = arrays_of(read_golden(tmp_path / "golden.npz"))
    assert found.keys() == arrays_of(golden).keys()
    for name, array in arrays_of(golden).items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("names", [("mass", "surprise"), ("surprise",)])
def test_an_array_that_is_none_of_its_own_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = {**arrays_of(GOLDEN), **dict.fromkeys(names, FURTHER["mass"])}
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(ArtifactError, match="surprise") as caught:
        read_golden(tmp_path / "golden.npz")
    assert str(tmp_path / "golden.npz") in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.npz cannot be read"):
        read_golden(tmp_path / "none.npz")
