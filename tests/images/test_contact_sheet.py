"""Contact sheets: sizes of thumbnails, which tiles stand where, how a sheet grows with its texts, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.contact_sheet import Tile, contact_sheet, tile

GRID = (4, 4)
SIDE = 112
TOKENS = 100
IMAGE = np.random.default_rng(0).integers(0, 190, (SIDE, SIDE, 3), dtype=np.uint8)
ALL = np.ones(16, dtype=np.int32)


def colour(index: int) -> tuple[int, int, int]:
    """A colour per tile that neither text nor bars have."""
    return 120, 10 + index, 255 - index


def tiles_of(counts: Sequence[int], size: tuple[int, int] = (SIDE, SIDE), label: str = "label") -> list[Tile]:
    return [Tile(Image.new("RGB", size, colour(i)), kept, label) for i, kept in enumerate(counts)]


def places_on(sheet: Image.Image) -> dict[int, tuple[int, int, int, int]]:
    """Finds tiles by their colours: left, top, right and bottom of each one that is shown."""
    red, green, blue = np.asarray(sheet).astype(int).transpose(2, 0, 1)
    rows, columns = np.nonzero((red == 120) & (green + blue == 265))
    indices = green[rows, columns] - 10
    found = {}
    for index in np.unique(indices).tolist():
        down, across = rows[indices == index], columns[indices == index]
        found[index] = across.min().item(), down.min().item(), across.max().item() + 1, down.max().item() + 1
    return found


def sheet_of(tiles: Sequence[Tile], **options: Any) -> Image.Image:
    given: dict[str, Any] = {"tokens": TOKENS, "title": "title"}
    return contact_sheet(tiles, **(given | options))


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, TOKENS), min_size=1, max_size=70), most=st.integers(2, 40))
def test_rows_run_from_few_to_many_kept_tokens_and_show_evenly_spaced_tiles(counts: list[int], most: int) -> None:
    places = places_on(sheet_of(tiles_of(counts, (40, 40)), most=most))
    shown = sorted(places, key=lambda index: (places[index][3], places[index][0]))
    ordered = sorted(range(len(counts)), key=lambda index: counts[index])
    assert len(shown) == min(most, len(counts))
    ranks = [ordered.index(index) for index in shown]
    assert ranks == sorted(ranks)
    assert (ranks[0], ranks[-1]) == (0, len(counts) - 1)
    steps = np.diff(ranks)
    assert steps.size == 0 or steps.max() - steps.min() <= 1


@pytest.mark.parametrize(("most", "shown"), [({}, 60), ({"most": 100}, 100)])
def test_sixty_are_shown_unless_another_number_is_given(most: dict[str, int], shown: int) -> None:
    assert len(places_on(sheet_of(tiles_of(range(100), (40, 40)), **most))) == shown


@pytest.mark.parametrize("size", [(112, 112), (112, 56), (56, 112), (32, 32)])
@pytest.mark.parametrize("count", [1, 7, 9, 60])
def test_tiles_stand_whole_and_apart_in_rows_and_columns(count: int, size: tuple[int, int]) -> None:
    sheet = sheet_of(tiles_of(range(count), size))
    places = places_on(sheet)
    assert len(places) == count
    for left, top, right, bottom in places.values():
        assert (right - left, bottom - top) == size
        assert left >= 0 and top >= 0 and right <= sheet.width and bottom <= sheet.height
    lefts, tops = (sorted({place[side] for place in places.values()}) for side in (0, 1))
    assert np.diff(lefts).min(initial=999) > size[0]
    assert np.diff(tops).min(initial=999) > size[1], "there is room for the captions"
    assert (len(lefts) - 1) * len(tops) < count <= len(lefts) * len(tops), "no column is empty"
    assert count > 8 or len(tops) == 1


@pytest.mark.parametrize(
    "label",
    [
        "a label that is much longer than the tile above it has room for",
        "柴犬",
        "شجرة",
        "bad\udc80name",
        "\0\t\x1b",
        "é",
    ],
)
def test_any_label_is_cut_to_its_tile(label: str) -> None:
    tiles = tiles_of([10, 20, 30])
    plain, other = sheet_of(tiles), sheet_of([tiles[0], Tile(tiles[1].picture, 20, label), tiles[2]])
    assert other.size == plain.size
    assert other != plain
    assert places_on(other) == places_on(plain)


def test_labels_are_one_text_however_it_is_written() -> None:
    composed, decomposed = (
        sheet_of(tiles_of([10], label=label)) for label in ("caf\xe9 \n au lait ", "cafe\u0301 au lait")
    )
    assert composed == decomposed
    assert composed != sheet_of(tiles_of([10], label="caf au lait"))


def test_a_sheet_is_as_high_as_its_texts_need() -> None:
    short, bare = sheet_of(tiles_of([10, 20])), sheet_of(tiles_of([10, 20], label=" "))
    assert bare.height < short.height, "there is no room for labels where there are none"
    for title in ("a title of many words " * 8, "word" * 80, "название " * 12):
        long = sheet_of(tiles_of([10, 20]), title=title)
        assert long.width == short.width
        assert (long.height > short.height) == (" " in title), "a title is wrapped between words"


@pytest.mark.parametrize(
    "changes", [{"title": "other"}, {"tokens": TOKENS + 1}, {"most": 2}, {"counts": [10, 20, 38]}], ids=str
)
def test_the_sheet_tells_title_tokens_counts_and_how_many_are_shown(changes: dict[str, Any]) -> None:
    counts = changes.pop("counts", [10, 20, 30])
    assert sheet_of(tiles_of(counts), **changes) != sheet_of(tiles_of([10, 20, 30]))


def test_the_same_tiles_give_the_same_sheet_and_stay_as_they_were() -> None:
    rng = np.random.default_rng(2)
    keeps = [(rng.random(16) < 0.5).astype(np.int32) for _ in range(20)]
    tiles = [tile(IMAGE, keep, GRID, kept=int(keep.sum()), label="x") for keep in keeps]
    pictures = [each.picture.copy() for each in tiles]
    first, second = (contact_sheet(tiles, 16, most=9, title="twice") for _ in range(2))
    assert first.mode == "RGB" and first == second
    assert pictures == [each.picture for each in tiles]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([], {}, "no tile"),
        ([10, 101], {}, "101 tokens kept"),
        ([10, -1], {}, "-1 tokens kept"),
        ([0], {"tokens": 0}, "0 tokens"),
        ([10, 20], {"most": 1}, "at most 1 of 2"),
        ([10], {"most": 0}, "at most 0 of 1"),
    ],
)
def test_sheets_that_cannot_be_are_refused_with_a_hint(
    counts: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        sheet_of(tiles_of(counts), **options)
    assert caught.value.hint
    assert len(places_on(sheet_of(tiles_of([10]), most=1))) == 1


@pytest.mark.parametrize(
    ("height", "width", "side", "expected"),
    [
        (112, 112, 112, (112, 112)),
        (96, 96, 112, (96, 96)),
        (64, 64, 112, (128, 128)),
        (32, 48, 112, (64, 96)),
        (8, 8, 112, (112, 112)),
        (224, 224, 112, (112, 112)),
        (224, 448, 112, (56, 112)),
        (384, 300, 100, (100, 78)),
        (4, 1200, 112, (1, 112)),
    ],
)
def test_images_are_enlarged_by_whole_factors_or_reduced_in_their_aspect_ratio(
    height: int, width: int, side: int, expected: tuple[int, int]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    made = tile(image, ALL, GRID, kept=16, label="x", side=side)
    assert (made.picture.height, made.picture.width) == expected
    assert (made.kept, made.label) == (16, "x")
    if expected >= (height, width):
        factor = expected[0] // height
        np.testing.assert_array_equal(np.asarray(made.picture), image.repeat(factor, axis=0).repeat(factor, axis=1))


def test_kept_patches_stay_as_they_are_and_dropped_ones_fade() -> None:
    keep = np.zeros(GRID, dtype=np.int32)
    keep[1, 2] = keep[3, 3] = 1
    picture = np.asarray(tile(IMAGE, keep.ravel(), GRID, kept=2, label="").picture)
    kept = keep.astype(bool).repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
    np.testing.assert_array_equal(picture[kept], IMAGE[kept])
    assert not (picture[~kept] == IMAGE[~kept]).all(axis=1).any()
    none = np.asarray(tile(IMAGE, np.zeros(16, np.int32), GRID, kept=0, label="").picture)
    grey = np.asarray(Image.fromarray(IMAGE).convert("L"))
    assert np.corrcoef(none[:, :, 0].ravel(), grey.ravel())[0, 1] > 0.99, "what was dropped can still be made out"


def test_a_tile_neither_holds_nor_changes_what_it_was_made_of() -> None:
    image, keep = IMAGE.copy(), ALL.copy()
    keep.flags.writeable = image.flags.writeable = False
    made = tile(image, keep, GRID, kept=16, label="").picture
    shown = made.copy()
    image.flags.writeable = True
    image[:] = 0
    assert made == shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": IMAGE.astype(np.float32)},
        {"grid": (4, 8)},
        {"keep": np.full(16, 2, np.int32)},
        {"kept": -1},
        {"kept": 17},
        {"side": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_tiles_of_what_does_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    """What a panel of kept tokens refuses, and sizes and counts of its own."""
    fitting: dict[str, Any] = {"image": IMAGE, "keep": ALL, "grid": GRID, "kept": 16, "label": "x"}
    tile(**fitting)
    with pytest.raises(InvalidArgument):
        tile(**(fitting | wrong))
