"""The grid of a checkpoint's position embeddings: as a file beside it says, else the model's or square, assumed."""

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
        chosen: height and width that the user chose, to which position embeddings are resampled; None for none.
        known: height and width that a file beside the weights says they are for; None where none says it.
    """

    chosen: tuple[int, int] | None = None
    known: tuple[int, int] | None = None


def size_words(size: tuple[int, int]) -> str:
    """Returns height and width as ``--imgsz`` takes them: one side of a square, else both."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


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
        ModelError: the grid is neither the model's nor a square one of another number of patches, contradicts what is
            known, or differs from the model's and the user chose no image size.
    """
    known = None if sizes.known is None else _known_grid(stored, model, sizes.known, origin)
    side, patch, own = math.isqrt(stored), model.patch_size[0], stored == model.patches
    if not own and known is None and side * side != stored:
        raise ModelError(
            f"weights {origin} do not fit: pos_embed is of {stored} patches, no square grid, the model's of"
            f" {model.grid[0]} × {model.grid[1]}",
            "they are for images that are not square: give their --imgsz, such as 224x320; or for a model with more or"
            " fewer prefix tokens",
        )
    if not own and sizes.chosen is None:
        raise ModelError(
            f"weights {origin} do not fit: pos_embed is of {stored} patches, the model's of {model.patches}",
            f"they may be for another image size: try --imgsz {side * patch}",
        )
    grid = known or (model.grid if own else (side, side))
    # timm resamples square grids alone, and none of as many patches as the model's.
    if grid != model.grid and (own or grid[0] != grid[1]):
        height, width = (rows * of_patch for rows, of_patch in zip(grid, model.patch_size, strict=True))
        raise ModelError(
            f"weights {origin} are for images of {height} × {width} pixels, a grid of {grid[0]} × {grid[1]} patches,"
            f" and not of {model.grid[0]} × {model.grid[1]}",
            f"give --imgsz {height}x{width}, or another number of patches where theirs is square",
        )
    if sizes.chosen is None or known is not None or (grid[0] == grid[1] and not _has_other_grid(stored)):
        return ()
    return (
        f"weights {origin}: position embeddings of {stored} patches are taken as a grid of {grid[0]} × {grid[1]},"
        " assumed: no file beside the weights says their image size",
    )


def _known_grid(stored: int, model: Shape, known: tuple[int, int], origin: str) -> tuple[int, int]:
    """Returns the grid of images of a known size; refuses a size that position embeddings contradict."""
    rows, columns = known[0] // model.patch_size[0], known[1] // model.patch_size[1]
    if rows * columns != stored:
        raise ModelError(
            f"weights {origin} have position embeddings of {stored} patches, and a file beside them says images of"
            f" {known[0]} × {known[1]} pixels, which are {rows * columns}",
            "correct the size in config.json or preprocessor_config.json, or move the file away",
        )
    return rows, columns


def _has_other_grid(patches: int) -> bool:
    """Returns whether so many patches also make a grid of two or more unequal rows and columns."""
    return any(patches % rows == 0 for rows in range(2, math.isqrt(patches)))
