"""Contact sheets: what a thumbnail shows, which tiles stand where, what is written below them, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.contact_sheet import Tile, contact_sheet, tile

_OUTLINE = (255, 196, 0)
_GRID = (4, 4)
_SIDE = 112
_TOKENS = 100


def _colour(index: int) -> tuple[int, int, int]:
    """A colour per tile that neither text nor bars have."""
    return 120, 10 + index, 255 - index


def _tiles(counts: Sequence[int], size: tuple[int, int] = (_SIDE, _SIDE), label: str = "label") -> list[Tile]:
    return [Tile(Image.new("RGB", size, _colour(i)), kept, label) for i, kept in enumerate(counts)]


def _places(sheet: Image.Image) -> dict[int, tuple[int, int, int, int]]:
    """Finds tiles by their colours: left, top, right and bottom of each one that is shown."""
    red, green, blue = np.asarray(sheet).astype(int).transpose(2, 0, 1)
    rows, columns = np.nonzero((red == 120) & (green + blue == 265))
    indices = green[rows, columns] - 10
    found = {}
    for index in np.unique(indices).tolist():
        down, across = rows[indices == index], columns[indices == index]
        found[index] = across.min().item(), down.min().item(), across.max().item() + 1, down.max().item() + 1
    return found


def _in_reading_order(places: dict[int, tuple[int, int, int, int]]) -> list[int]:
    return sorted(places, key=lambda index: (places[index][3], places[index][0]))


def _changed(before: Image.Image, after: Image.Image) -> NDArray[np.bool_]:
    assert before.size == after.size
    changed: NDArray[np.bool_] = (np.asarray(before) != np.asarray(after)).any(axis=2)
    return changed


def _sheet(tiles: Sequence[Tile], **options: Any) -> Image.Image:
    given: dict[str, Any] = {"tokens": _TOKENS, "title": "title"}
    return contact_sheet(tiles, **(given | options))


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, _TOKENS), min_size=1, max_size=70), most=st.integers(2, 40))
def test_rows_run_from_few_to_many_kept_tokens_and_show_evenly_spaced_tiles(counts: list[int], most: int) -> None:
    shown = _in_reading_order(_places(_sheet(_tiles(counts, (40, 40)), most=most)))
    ordered = sorted(range(len(counts)), key=lambda index: counts[index])
    assert len(shown) == min(most, len(counts))
    ranks = [ordered.index(index) for index in shown]
    assert ranks == sorted(ranks)
    assert (ranks[0], ranks[-1]) == (0, len(counts) - 1)
    steps = np.diff(ranks)
    assert steps.size == 0 or steps.max() - steps.min() <= 1


def test_sixty_are_shown_unless_said_otherwise() -> None:
    tiles = _tiles(range(100), (40, 40))
    assert len(_places(_sheet(tiles))) == 60
    assert len(_places(_sheet(tiles, most=100))) == 100


@pytest.mark.parametrize("size", [(112, 112), (112, 56), (56, 112), (32, 32)])
@pytest.mark.parametrize("count", [1, 7, 9, 60])
def test_tiles_stand_whole_and_apart_in_rows_and_columns(count: int, size: tuple[int, int]) -> None:
    sheet = _sheet(_tiles(range(count), size))
    places = _places(sheet)
    assert len(places) == count
    for left, top, right, bottom in places.values():
        assert (right - left, bottom - top) == size
        assert min(left, top, sheet.width - right, sheet.height - bottom) >= 16
    lefts, tops = (sorted({place[side] for place in places.values()}) for side in (0, 1))
    assert len(set(np.diff(lefts))) <= 1 and len(set(np.diff(tops))) <= 1
    assert np.diff(lefts).min(initial=999) >= size[0] + 12
    assert np.diff(tops).min(initial=999) >= size[1] + 40, "there is room for the captions"
    assert (len(lefts) - 1) * len(tops) < count <= len(lefts) * len(tops), "no column is empty"
    if count <= 8:
        assert len(tops) == 1
    if count == 60:
        assert 0.8 < sheet.width / sheet.height < 2


def test_thumbnails_of_several_shapes_stand_on_one_line_per_row() -> None:
    pictures = [Image.new("RGB", size, _colour(i)) for i, size in enumerate([(112, 56), (56, 112), (30, 30)])]
    places = _places(_sheet([Tile(picture, 1, "x") for picture in pictures]))
    assert len({bottom for *_, bottom in places.values()}) == 1
    middles = [(left + right) // 2 for left, _, right, _ in places.values()]
    assert middles[1] - middles[0] == middles[2] - middles[1]


def test_text_and_spacing_grow_with_the_thumbnails() -> None:
    once, twice = (_sheet(_tiles(range(12), (side, side))) for side in (112, 224))
    assert twice.size == pytest.approx((2 * once.width, 2 * once.height), rel=0.02)


def _below(sheet: Image.Image, place: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The cell below a tile, as a mask of the sheet; letters may begin a little before where they stand."""
    mask = np.zeros((sheet.height, sheet.width), dtype=bool)
    left, _, right, bottom = place
    mask[bottom : bottom + 60, left - 2 : right + 2] = True
    return mask


def _heading(sheet: Image.Image, top: int) -> NDArray[np.bool_]:
    mask = np.zeros((sheet.height, sheet.width), dtype=bool)
    mask[:top] = True
    return mask


def test_each_tile_has_its_label_below_it() -> None:
    tiles = _tiles([10, 20, 30])
    before = _sheet(tiles)
    for index, place in _places(before).items():
        other = [*tiles]
        other[index] = Tile(tiles[index].picture, tiles[index].kept, "other")
        changed = _changed(before, _sheet(other))
        assert changed.any() and not (changed & ~_below(before, place)).any()


def test_each_tile_has_its_count_and_share_below_it_and_the_heading_tells_the_range() -> None:
    before, after = _sheet(_tiles([10, 20, 30])), _sheet(_tiles([10, 20, 38]))
    places = _places(before)
    changed = _changed(before, after)
    below, above = _below(before, places[2]), _heading(before, places[2][1])
    assert (changed & below).any() and (changed & above).any() and not (changed & ~below & ~above).any()


def test_captions_and_heading_tell_of_how_many_tokens() -> None:
    before, after = _sheet(_tiles([10, 20]), tokens=100), _sheet(_tiles([10, 20]), tokens=101)
    changed, places = _changed(before, after), _places(before)
    for where in (_below(before, places[0]), _below(before, places[1]), _heading(before, places[0][1])):
        assert (changed & where).any()


def test_the_heading_has_the_title() -> None:
    before, after = _sheet(_tiles([10, 20]), title="one"), _sheet(_tiles([10, 20]), title="two")
    changed = _changed(before, after)
    assert changed.any() and not changed[48:].any()


def test_the_heading_tells_of_all_tiles_shown_or_not() -> None:
    tiles = [Tile(Image.new("RGB", (_SIDE, _SIDE), _colour(0)), kept, "x") for kept in (10, 20, 60)]
    more_kept, more_tiles = ([tiles[0], *between, tiles[2]] for between in ([tiles[2]], [tiles[1]] * 2))
    before = _sheet(tiles, most=2)
    top = _places(before)[0][1]
    for other in (more_kept, more_tiles):
        changed = _changed(before, _sheet(other, most=2))
        assert changed[48:top].any() and not changed[top:].any() and not changed[:48].any()


def test_the_heading_tells_how_many_of_them_are_shown() -> None:
    two, three = (_sheet(_tiles([10, 35, 60]), most=most) for most in (2, 3))
    assert two.size == three.size
    top = _places(two)[0][1]
    changed = _changed(two, three)[:top]
    assert changed[48:].any() and not changed[:48].any()


@pytest.mark.parametrize(
    ("kept", "tokens", "filled"),
    [(0, 100, 0), (1, 100, 1), (50, 100, 56), (99, 100, 110), (100, 100, 112), (1, 4096, 1), (4095, 4096, 111)],
)
def test_a_bar_below_the_tile_shows_the_kept_share(kept: int, tokens: int, filled: int) -> None:
    sheet = _sheet(_tiles([kept]), tokens=tokens)
    left, _, right, bottom = _places(sheet)[0]
    strip = np.asarray(sheet)[bottom : bottom + 10, left:right]
    bar = strip[(strip != 255).all(axis=(1, 2)) | (strip == _OUTLINE).all(axis=2).any(axis=1)]
    assert 3 <= len(bar) <= 8
    yellow = (bar == _OUTLINE).all(axis=2)
    assert yellow.sum(axis=1).tolist() == [filled] * len(bar)
    assert yellow[:, :filled].all()


_LONG = "a label that is much longer than the tile above it has room for, n03000134"


@pytest.mark.parametrize(
    "label",
    [
        _LONG,
        "x" * 300,
        "柴犬",
        "Кошка домашняя обыкновенная",
        "شجرة الحياة",
        "bad\udc80name",
        "two\nlines",
        "\0\t\x1b",
        "é",
    ],
)
def test_any_label_stays_below_its_tile(label: str) -> None:
    tiles = _tiles([10, 20, 30])
    before = _sheet(tiles)
    after = _sheet([tiles[0], Tile(tiles[1].picture, 20, label), tiles[2]])
    changed = _changed(before, after)
    assert changed.any() and not (changed & ~_below(before, _places(before)[1])).any()


def test_long_labels_keep_their_beginning_and_end() -> None:
    def sheet(label: str) -> Image.Image:
        return _sheet(_tiles([10, 20], label=label))

    assert sheet(_LONG) != sheet(_LONG[:-1] + "5")
    assert sheet(_LONG) != sheet("the" + _LONG[1:])
    assert sheet(_LONG) == sheet(_LONG.replace("longer", "shorter"))
    assert sheet("brief") != sheet("brie-")


def test_labels_are_one_text_however_it_is_written() -> None:
    composed, decomposed = (
        _sheet(_tiles([10], label=label)) for label in ("caf\xe9 \n au lait ", "cafe\u0301 au lait")
    )
    assert composed == decomposed
    assert composed != _sheet(_tiles([10], label="caf au lait"))


def test_without_labels_there_is_no_room_for_them() -> None:
    labelled, bare, half = (_sheet(_tiles([1, 2], label=label)) for label in ("x", " ", ""))
    assert bare.height < labelled.height
    assert bare == half


def test_long_titles_are_wrapped_and_stay_on_the_sheet() -> None:
    short = _sheet(_tiles([10, 20]))
    for title in ("a title of many words " * 8, "word" * 80, "название " * 12):
        long = _sheet(_tiles([10, 20]), title=title)
        assert long.width == short.width
        assert (long.height > short.height + 20) == (" " in title)
        ink = np.nonzero((np.asarray(long.convert("L")) < 128).any(axis=0))[0]
        assert ink.min() >= 16 and ink.max() < long.width - 16


def test_the_same_tiles_give_the_same_sheet_and_stay_as_they_were() -> None:
    rng = np.random.default_rng(2)
    tiles = []
    for index in range(20):
        keep = (rng.random(16) < 0.5).astype(np.int32)
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        tiles.append(tile(image, keep, _GRID, kept=int(keep.sum()), label=f"tile {index}"))
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
        _sheet(_tiles(counts), **options)
    assert caught.value.hint


def test_one_tile_is_shown_where_at_most_one_is() -> None:
    assert len(_places(_sheet(_tiles([10]), most=1))) == 1
