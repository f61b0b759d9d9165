"""The grid that a checkpoint's position embeddings are of: as a file beside it says, else assumed to be square."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sait_deploy.errors import ModelError

if TYPE_CHECKING:
    from sait_deploy.models.transformer import Shape


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Image sizes in pixels that are known before weights are read.

    Attributes:
        chosen: side that the user chose, to which position embeddings are resampled; None for none.
        known: height and width that a file beside the weights says they are for; None where none says it.
    """

    chosen: int | None = None
    known: tuple[int, int] | None = None


def check_grid(stored: int, model: Shape, sizes: ImageSizes, origin: str) -> tuple[str, ...]:
    """Checks that position embeddings are of a grid that the model's can be made of.

    Args:
        stored: patches that the checkpoint has position embeddings for.
        model: the sizes of the model that is made.
        sizes: what is known of image sizes.
        origin: the file's name, for errors and notes.

    Returns:
        What is assumed of the grid, a sentence each.

    Raises:
        ModelError: the grid is not square, contradicts what is known, or differs from the model's and the user chose
            no image size.
    """
    if sizes.known is not None:
        _check_known(stored, model, sizes.known, origin)
    side, patch = math.isqrt(stored), model.patch_size[0]
    own = stored == model.patches
    if not own and side * side != stored:
        raise ModelError(
            f"weights {origin} do not fit: pos_embed is of {stored} patches, no square grid, the model's of"
            f" {model.grid[0]} × {model.grid[1]}",
            "they are for images that are not square, or for a model with more or fewer prefix tokens",
        )
    if not own and sizes.chosen is None:
        raise ModelError(
            f"weights {origin} do not fit: pos_embed is of {stored} patches, the model's of {model.patches}",
            f"they may be for another image size: try --imgsz {side * patch}",
        )
    if sizes.chosen is None or sizes.known is not None or side * side != stored or not _has_other_grid(stored):
        return ()
    return (
        f"weights {origin}: position embeddings of {stored} patches are taken as a grid of {side} × {side}, assumed:"
        " no file beside the weights says their image size",
    )


def _check_known(stored: int, model: Shape, known: tuple[int, int], origin: str) -> None:
    """Refuses an image size that position embeddings contradict, and one that is not square."""
    rows, columns = known[0] // model.patch_size[0], known[1] // model.patch_size[1]
    size = f"{known[0]} × {known[1]} pixels"
    if rows * columns != stored:
        raise ModelError(
            f"weights {origin} have position embeddings of {stored} patches, and a file beside them says images of"
            f" {size}, which are {rows * columns}",
            "correct the size in config.json or preprocessor_config.json, or move the file away",
        )
    if rows != columns and (rows, columns) != model.grid:
        raise ModelError(
            f"weights {origin} are for images of {size}, a grid of {rows} × {columns} patches, and not for square ones",
            "make the model in Python at that size and give it to sait_deploy.export",
        )


def _has_other_grid(patches: int) -> bool:
    """Returns whether so many patches also make a grid of two or more unequal rows and columns."""
    return any(patches % rows == 0 for rows in range(2, math.isqrt(patches)))
