"""Files of class embeddings: what is read, and each way in which one cannot be used."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation import class_embeddings as module
from sait_deploy.evaluation.class_embeddings import read_class_embeddings

ROWS = np.array([[3, 4, 0], [0, 0, 2]], dtype=np.float64)
NAMES = np.array(["cat", "dog"])


def saved(path: Path, **arrays: Any) -> Path:
    """Writes an archive of these arrays."""
    np.savez(path, **arrays)
    return path


def test_embeddings_are_brought_to_unit_length_and_that_is_said(tmp_path: Path) -> None:
    found = read_class_embeddings(saved(tmp_path / "c.npz", embeddings=ROWS, labels=NAMES, prompts=NAMES), 3)
    assert found.labels == ("cat", "dog")
    assert found.embeddings.dtype == np.float32
    np.testing.assert_allclose(found.embeddings, [[0.6, 0.8, 0], [0, 0, 1]], rtol=1e-6)
    assert found.note == "classes are the nearest of 2 embeddings in c.npz, brought from lengths 2 to 5 to unit length"
    np.testing.assert_allclose(found.scores(np.array([[0, 1, 0]], np.float32)), [[0.8, 0]], rtol=1e-6)
    half = saved(tmp_path / "unit.npz", embeddings=found.embeddings.astype(np.float16), labels=NAMES)
    assert read_class_embeddings(half, 3).note == "classes are the nearest of 2 embeddings in unit.npz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "no array 'labels', and hold embeddings"),
        ({"embeddings": None}, "no array 'embeddings', and hold labels"),
        ({"embeddings": ROWS[:, :2]}, "have 2 numbers each, and the model's have 3"),
        ({"embeddings": ROWS.astype(int)}, "no float array"),
        ({"embeddings": ROWS[0]}, "no float array"),
        ({"embeddings": ROWS[:0]}, "no float array"),
        ({"embeddings": ROWS * np.nan}, "row 0 of 'embeddings'.*not finite"),
        ({"embeddings": ROWS * 1e300}, "row 0 of 'embeddings'.*not finite"),
        ({"embeddings": ROWS * [[1], [0]]}, "'dog'.* is zero"),
        ({"labels": np.array(["cat"])}, "one class"),
        ({"labels": np.array(["cat", "dog", "owl"])}, "2 rows and 3 labels"),
        ({"labels": np.array(["cat", "cat"])}, "'cat' stands twice"),
        ({"labels": np.array(["cat", ""])}, "label 1 in .* is ''"),
        ({"labels": np.array(["cat", "d\x1bog"])}, "cannot be printed"),
        ({"labels": np.arange(2)}, "no list of names"),
        ({"labels": np.array(["cat", "dog"], dtype=object)}, "Python objects"),
        ({"embeddings": ROWS.astype(object)}, "Python objects"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_cannot_be_used_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    arrays = {"embeddings": ROWS, "labels": NAMES} | changes
    path = tmp_path / "c.npz"
    np.savez(path, allow_pickle=True, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InvalidArgument, match=message) as refused:
        read_class_embeddings(path, 3)
    assert refused.value.hint and "c.npz" in refused.value.message
    assert "\n" not in refused.value.message


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", ROWS)
    (tmp_path / "text.npz").write_text("no archive", encoding="utf-8")
    whole = saved(tmp_path / "whole.npz", embeddings=ROWS, labels=NAMES).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("embeddings.npy", b"not an array")
    for name in ("array.npy", "text.npz", "cut.npz", "other.npz", "missing.npz", ""):
        with pytest.raises(InvalidArgument, match="class embeddings"):
            read_class_embeddings(tmp_path / name, 3)


def test_an_archive_that_unpacks_to_more_than_fits_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    path = tmp_path / "c.npz"
    np.savez_compressed(path, embeddings=np.ones((2, 3)), labels=NAMES, further=np.zeros(10_000))
    with pytest.raises(InvalidArgument, match="unpack to"):
        read_class_embeddings(path, 3)
