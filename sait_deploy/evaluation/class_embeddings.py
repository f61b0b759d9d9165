"""Embeddings of classes from a file, such as those of texts: what a model that embeds classifies images by."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.labels import is_class_name
from sait_deploy.runtime.embeddings import unit_length

EMBEDDINGS: Final = "embeddings"
LABELS: Final = "labels"
_HINT: Final = "save it with numpy.savez(FILE, embeddings=float array [classes, D], labels=array of names)"
_MOST_BYTES: Final = 2 << 30
"""Of the arrays, unpacked: 20,000 classes of 2,048 numbers take 160 MB."""

_LENGTH_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class ClassEmbeddings:
    """An embedding for each class.

    Attributes:
        labels: names of the classes.
        embeddings: float32 [classes, D], of unit length.
        note: where they came from, and whether they had another length there.
    """

    labels: tuple[str, ...]
    embeddings: NDArray[np.float32]
    note: str

    def scores(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the cosines of embeddings of unit length [n, D] with those of the classes, float32 [n, classes]."""
        return embeddings @ self.embeddings.T


def read_class_embeddings(path: Path, width: int) -> ClassEmbeddings:
    """Reads a NumPy archive of ``embeddings``, a float array [classes, D], and ``labels``, a name for each class.

    Nothing in the file is unpickled. Embeddings are brought to unit length.

    Args:
        path: the file.
        width: D of the model.

    Raises:
        InvalidArgument: the file cannot be read; an array is missing, of another shape or type, not finite, or zero; or
            labels are not as many as embeddings, empty, or not all different.
    """
    arrays = _arrays(path)
    missing = [name for name in (EMBEDDINGS, LABELS) if name not in arrays]
    if missing:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise InvalidArgument(f"class embeddings {path} have no array {missing[0]!r}, and hold {held}", _HINT)
    rows, labels = _embeddings(path, arrays[EMBEDDINGS], width), _labels(path, arrays[LABELS])
    if len(labels) != len(rows):
        raise InvalidArgument(f"class embeddings {path} have {len(rows)} rows and {len(labels)} labels", _HINT)
    lengths = np.linalg.norm(rows, axis=1)
    if not (lengths > 0).all():
        zero = labels[int(np.flatnonzero(lengths == 0)[0])]
        raise InvalidArgument(
            f"the embedding of class {zero!r} in {path} is zero", "a zero has no direction: leave it out"
        )
    is_unit = bool((np.abs(lengths - 1) <= _LENGTH_TOLERANCE).all())
    brought = "" if is_unit else f", brought from lengths {lengths.min():.3g} to {lengths.max():.3g} to unit length"
    note = f"classes are the nearest of {len(labels)} embeddings in {path.name}{brought}"
    return ClassEmbeddings(labels, unit_length(rows), note)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _MOST_BYTES:
            raise InvalidArgument(f"class embeddings {path} unpack to {size} bytes, over {_MOST_BYTES}", _HINT)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in (EMBEDDINGS, LABELS) if name in archive.files} or {
                name: np.empty(0) for name in archive.files
            }
    except InvalidArgument:
        raise
    except OSError as error:
        raise InvalidArgument(f"class embeddings {path} cannot be read ({error.strerror or error})", _HINT) from None
    except zipfile.BadZipFile:
        raise InvalidArgument(f"class embeddings {path} are no whole .npz file", _HINT) from None
    except Exception as error:  # damaged archives make zipfile, zlib and NumPy raise nearly anything
        if "allow_pickle" in str(error):
            what = f"class embeddings {path} hold Python objects, which are pickled and not read"
            raise InvalidArgument(what, "save labels as numpy.array(names, dtype=str)") from None
        raise InvalidArgument(f"class embeddings {path} cannot be read ({error})", _HINT) from None


def _embeddings(path: Path, array: NDArray[Any], width: int) -> NDArray[np.float32]:
    if array.dtype.kind != "f" or array.ndim != 2 or not len(array):
        raise InvalidArgument(
            f"{EMBEDDINGS!r} in {path} is {array.dtype} {list(array.shape)}, no float array [classes, D]", _HINT
        )
    if array.shape[1] != width:
        raise InvalidArgument(
            f"class embeddings {path} have {array.shape[1]} numbers each, and the model's have {width}",
            "make them with the text tower of the same model; --head projection keeps an image tower's projection",
        )
    rows = array.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise InvalidArgument(f"row {int(wrong[0])} of {EMBEDDINGS!r} in {path} is not finite", "make the file again")
    return rows


def _labels(path: Path, array: NDArray[Any]) -> tuple[str, ...]:
    if array.dtype.kind != "U" or array.ndim != 1:
        raise InvalidArgument(f"{LABELS!r} in {path} is {array.dtype} {list(array.shape)}, no list of names", _HINT)
    labels = tuple(map(str, array))
    if len(labels) < 2:
        raise InvalidArgument(f"class embeddings {path} are of one class", "give two classes or more")
    for number, label in enumerate(labels):
        if not is_class_name(label):
            raise InvalidArgument(f"label {number} in {path} is {label!r}, which cannot be printed", _HINT)
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise InvalidArgument(
            f"label {repeated[0]!r} stands twice in {path}", "give each class one embedding and a name"
        )
    return labels
