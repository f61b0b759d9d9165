"""One tile of a contact sheet: the image at the sheet's scale, its dropped patches faded, its kept ones outlined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.contact_sheet import tile

_OUTLINE = (255, 196, 0)
_GRID = (4, 4)
_PATCH = 28
_SIDE = 112
_IMAGE = np.random.default_rng(0).integers(0, 190, (_SIDE, _SIDE, 3), dtype=np.uint8)
_ALL = np.ones(16, dtype=np.int32)


def _kept(*patches: tuple[int, int]) -> NDArray[np.int32]:
    keep = np.zeros(_GRID, dtype=np.int32)
    for patch in patches:
        keep[patch] = 1
    return keep.ravel()


@pytest.mark.parametrize(
    ("height", "width", "side", "scale"),
    [(112, 112, 112, 1), (96, 96, 112, 1), (64, 64, 112, 2), (32, 48, 112, 2), (8, 8, 112, 14), (60, 100, 224, 2)],
)
def test_small_images_are_enlarged_pixel_by_pixel(height: int, width: int, side: int, scale: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    grid = height // 4, width // 4
    keep = np.ones(grid[0] * grid[1], dtype=np.int32)
    made = tile(image, keep, grid, kept=keep.size, label="x", side=side)
    np.testing.assert_array_equal(np.asarray(made.picture), image.repeat(scale, axis=0).repeat(scale, axis=1))
    assert (made.kept, made.label) == (keep.size, "x")


@pytest.mark.parametrize(
    ("height", "width", "side", "expected"),
    [
        (224, 224, 112, (112, 112)),
        (224, 448, 112, (56, 112)),
        (448, 224, 112, (112, 56)),
        (384, 300, 100, (100, 78)),
        (4, 1200, 112, (1, 112)),
        (116, 116, 112, (112, 112)),
    ],
)
def test_large_images_are_reduced_to_the_side_in_their_aspect_ratio(
    height: int, width: int, side: int, expected: tuple[int, int]
) -> None:
    fine = np.indices((height, width)).sum(axis=0) % 2 * 200
    made = tile(np.dstack([fine] * 3).astype(np.uint8), _ALL, _GRID, kept=16, label="", side=side)
    pixels = np.asarray(made.picture)
    assert pixels.shape[:2] == expected
    if max(height, width) >= 2 * side:
        assert np.abs(pixels.astype(int) - 100).max() <= 30, "a fine pattern becomes its mean, not a coarse one"


@settings(max_examples=30, deadline=None)
@given(keep=hnp.arrays(np.int32, _GRID, elements=st.integers(0, 1)))
def test_dropped_patches_are_faded_and_kept_ones_whole_within_a_thin_outline(keep: NDArray[np.int32]) -> None:
    picture = np.asarray(tile(_IMAGE, keep.ravel(), _GRID, kept=int(keep.sum()), label="").picture)
    kept = keep.astype(bool).repeat(_PATCH, axis=0).repeat(_PATCH, axis=1)
    np.testing.assert_array_equal(picture[kept], _IMAGE[kept])
    around = np.pad(kept, 1)
    touches = np.logical_or.reduce([np.roll(around, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    line = (picture == _OUTLINE).all(axis=2)
    np.testing.assert_array_equal(line, touches[1:-1, 1:-1] & ~kept)
    rest = picture[~kept & ~line]
    assert rest.size == 0 or (np.ptp(rest, axis=1).max() == 0 and rest.max() <= 110 and rest.min() >= 20)


def test_what_was_dropped_can_still_be_made_out() -> None:
    picture = np.asarray(tile(_IMAGE, _kept(), _GRID, kept=0, label="").picture)
    grey = np.asarray(Image.fromarray(_IMAGE).convert("L"))
    assert np.corrcoef(picture[:, :, 0].ravel(), grey.ravel())[0, 1] > 0.99


def test_reduced_images_show_the_patches_at_their_places() -> None:
    image = np.full((518, 518, 3), (180, 60, 60), dtype=np.uint8)
    keep = np.zeros((37, 37), dtype=np.int32)
    keep[0, :18] = keep[36, 36] = 1
    picture = np.asarray(tile(image, keep.ravel(), (37, 37), kept=19, label="").picture)
    coloured = (picture == (180, 60, 60)).all(axis=2)
    rows, columns = np.nonzero(coloured[:56])
    assert (rows.max(), columns.min()) == (3, 0) and abs(columns.max() + 1 - 18 / 37 * 112) <= 1
    rows, columns = np.nonzero(coloured[56:])
    assert rows.min() + 56 == columns.min() and abs(columns.min() - 36 / 37 * 112) <= 1
    assert rows.max() + 56 == columns.max() == 111


def test_patches_too_fine_for_an_outline_have_none() -> None:
    image = np.full((224, 224, 3), 90, dtype=np.uint8)
    keep = np.zeros((56, 56), dtype=np.int32)
    keep[::2, ::2] = 1
    picture = np.asarray(tile(image, keep.ravel(), (56, 56), kept=784, label="").picture)
    assert (picture == 90).all(axis=2).sum() == 784 * 4
    assert not (picture == _OUTLINE).all(axis=2).any()


def test_a_tile_neither_holds_nor_changes_what_it_was_made_of() -> None:
    image, keep = _IMAGE.copy(), _kept((1, 1))
    before = tile(image, keep, _GRID, kept=1, label="").picture
    np.testing.assert_array_equal(image, _IMAGE)
    shown = before.copy()
    image[:] = 0
    assert before == shown
    for array in (image, keep):
        array.flags.writeable = False
    tile(image, keep, _GRID, kept=1, label="")


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": _IMAGE.astype(np.float32)},
        {"image": _IMAGE[:, :, 0]},
        {"image": _IMAGE[:110]},
        {"grid": (0, 4)},
        {"grid": (4, 8)},
        {"keep": np.ones(17, np.int32)},
        {"keep": np.full(16, 2, np.int32)},
        {"kept": -1},
        {"kept": 17},
        {"side": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_tiles_of_what_does_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    fitting: dict[str, Any] = {"image": _IMAGE, "keep": _ALL, "grid": _GRID, "kept": 16, "label": "x"}
    tile(**fitting)
    with pytest.raises(InvalidArgument):
        tile(**(fitting | wrong))
