"""The golden file: one real image and its answer, so that any consumer in any language can check itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import is_further_output
from sait_deploy.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Golden:
    """One real image and its answer.

    Attributes:
        pixels: uint8 [H, W, C], the image after resize and crop.
        images: float32 [1, C, H, W], what the model is fed.
        logits: float32 [1, classes].
        counts: int32 [1], tokens kept, prefix included.
        mass: float32 [1], of an adaptive artifact, what it is fed beside the image.
        keep_limits: int32 [1, 2], likewise.
        token_features: float32 [1, P+N, D], of an artifact that returns them.
        further: the other outputs by their names, such as ``block3_features``; arrays of the file beside the others.
    """

    pixels: NDArray[np.uint8]
    images: NDArray[np.float32]
    logits: NDArray[np.float32]
    counts: NDArray[np.int32]
    mass: NDArray[np.float32] | None = None
    keep_limits: NDArray[np.int32] | None = None
    token_features: NDArray[np.float32] | None = None
    further: Mapping[str, NDArray[Any]] = field(default_factory=dict)


_NAMES: Final = tuple(one.name for one in fields(Golden) if one.name != "further")


def read_golden(path: Path) -> Golden:
    """Reads a golden file.

    Raises:
        ArtifactError: it lacks an array, or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            further = {name: arrays[name] for name in arrays.files if is_further_output(name)}
            known = {name: arrays[name] for name in arrays.files if name not in further}
            return Golden(**known, further=further)
    except Exception as error:  # damaged archives raise nearly anything
        raise ArtifactError(f"{path} cannot be read ({error})", "export again") from None


def write_golden(path: Path, golden: Golden) -> None:
    """Writes a golden file; arrays that an artifact has not are left out."""
    arrays = {name: getattr(golden, name) for name in _NAMES} | dict(golden.further)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
