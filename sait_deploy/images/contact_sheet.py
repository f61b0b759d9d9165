"""Many images on one sheet with their dropped patches faded, from easy (few tokens kept) to difficult (many)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.kept_tokens import INK, OUTLINE, PAPER, Font, check_panel, enlarged, faded, legible, wrapped

_SIDE: Final = 112
# Least pixels of a patch that outlines are drawn around.
_OUTLINED: Final = 3
_MIN_CELL: Final = 96
_MIN_WIDTH: Final = 440
# So many tiles stand in one row; more are laid out for a sheet of this width to height.
_ONE_ROW, _SHAPE = 8, 1.3
_MUTED, _TRACK = (104, 104, 112), (222, 222, 228)


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of a sheet.

    Attributes:
        picture: RGB thumbnail with dropped patches faded.
        kept: patch tokens that were kept, prefix tokens not counted.
        label: text below it; cut short where it does not fit.
        further: text below that, likewise.
    """

    picture: Image.Image
    kept: int
    label: str
    further: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The texts below it."""
        return tuple(text for text in (self.label, self.further) if text.split())


def tile(
    image: NDArray[np.uint8],
    keep: NDArray[np.int32],
    grid: tuple[int, int],
    *,
    kept: int,
    label: str,
    further: str = "",
    side: int = _SIDE,
) -> Tile:
    """Makes a tile at once, so that of thousands of images only the thumbnails are held.

    Args:
        image: what the model saw, uint8 [H, W, 3].
        keep: [N], 1 where a patch token was kept, 0 where it was dropped; prefix tokens are not part of it.
        grid: rows and columns of patches, N = rows * columns.
        kept: the count to caption it with, of N.
        label: text below it.
        further: text below that.
        side: pixels of the thumbnail's longer side. Larger images are reduced to it; smaller ones are enlarged, pixel
            by pixel, by the whole factor that comes nearest: to between two thirds and four thirds of it.

    Raises:
        InvalidArgument: a shape, dtype or value does not fit, or the side is not positive.
    """
    check_panel(image, keep, grid)
    _check_kept(kept, keep.size)
    if side < 1:
        raise InvalidArgument(f"a thumbnail of {side} pixels shows nothing", f"give a positive side, such as {_SIDE}")
    longer = max(image.shape[:2])
    if longer > side:
        height, width = (max(1, round(size * side / longer)) for size in image.shape[:2])
        # Reduced before patches are faded, so that their edges and outlines stay sharp.
        small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    else:
        scale = (2 * side + longer) // (2 * longer)
        small = enlarged(image, scale, scale)
    down, across = ((np.arange(size) * patches) // size for size, patches in zip(small.shape[:2], grid, strict=True))
    region = keep.reshape(grid).astype(bool)[down[:, None], across]
    picture = faded(small, region)
    # The outline runs outside: within patches this small it would leave nothing of what was kept.
    if min(size // patches for size, patches in zip(small.shape[:2], grid, strict=True)) >= _OUTLINED:
        picture[_around(region)] = OUTLINE
    return Tile(Image.fromarray(picture), int(kept), label, further)


def _around(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns the pixels that touch a region from outside."""
    grown = np.asarray(Image.fromarray(region.astype(np.uint8)).filter(ImageFilter.MaxFilter(3)))
    around: NDArray[np.bool_] = (grown > 0) & ~region
    return around


def contact_sheet(tiles: Sequence[Tile], tokens: int, *, most: int = 60, title: str) -> Image.Image:
    """Draws tiles in rows, from the fewest tokens kept at the top left to the most at the bottom right.

    Each has a bar for the kept share, "kept / tokens" and its label below it. The heading tells the title, the range
    and the mean of what all the tiles kept, and how many of them are shown.

    Args:
        tiles: in any order; those that kept equally many stay in theirs.
        tokens: patch tokens per image.
        most: tiles to show. Of more, evenly spaced ones in order of tokens kept, the first and the last among them.
        title: first line of the heading; wrapped where it is too long.

    Returns:
        An RGB picture, whose text and spacing grow with the thumbnails.

    Raises:
        InvalidArgument: there is no tile, a tile kept fewer than 0 or more than ``tokens``, or ``most`` has no room
            for the first and the last.
    """
    _check_sheet(tiles, tokens, most)
    ordered = sorted(tiles, key=lambda each: each.kept)
    shown = _evenly_spaced(ordered, most)
    cell = _cell_for(shown, tokens)
    columns = _columns(len(shown), cell)
    width = max(columns * (cell.width + cell.gap) - cell.gap, cell.pixels(_MIN_WIDTH))
    heading = [
        *_lines(title, cell.pixels(22), INK, width),
        *_lines(_summary(ordered, len(shown), tokens), cell.pixels(15), _MUTED, width),
    ]
    margin = cell.pixels(20)
    first = margin + sum(line.height for line in heading) + cell.pixels(14)
    bottom = first + -(-len(shown) // columns) * (cell.height + cell.gap) - cell.gap
    sheet = Image.new("RGB", (width + 2 * margin, bottom + margin), PAPER)
    top = margin
    for line in heading:
        line.draw(sheet, margin, top)
        top += line.height
    for index, each in enumerate(shown):
        row, column = divmod(index, columns)
        cell.draw(sheet, margin + column * (cell.width + cell.gap), first + row * (cell.height + cell.gap), each)
    return sheet


def _check_sheet(tiles: Sequence[Tile], tokens: int, most: int) -> None:
    if not tiles:
        raise InvalidArgument("there is no tile to show", "give at least one image")
    if tokens < 1:
        raise InvalidArgument(f"{tokens} tokens per image are none", "give rows * columns of patches")
    for each in tiles:
        _check_kept(each.kept, tokens)
    if most < min(2, len(tiles)):
        raise InvalidArgument(f"at most {most} of {len(tiles)} tiles have no first and last", "show at least 2")


def _check_kept(kept: int, tokens: int) -> None:
    if not 0 <= kept <= tokens:
        raise InvalidArgument(
            f"{kept} tokens kept is not between 0 and {tokens}", "count patch tokens only, not prefix tokens"
        )


def _evenly_spaced(ordered: Sequence[Tile], most: int) -> Sequence[Tile]:
    if len(ordered) <= most:
        return ordered
    return [ordered[round(index * (len(ordered) - 1) / (most - 1))] for index in range(most)]


def _summary(ordered: Sequence[Tile], shown: int, tokens: int) -> str:
    count, low, high = len(ordered), ordered[0].kept, ordered[-1].kept
    mean = sum(each.kept for each in ordered) / (count * tokens)
    if count == 1:
        return f"1 image keeps {low} of {tokens} tokens ({mean:.1%}). 1 of 1 shown."
    if low == high:
        return f"{count:,} images keep {low} of {tokens} tokens each ({mean:.1%}). {shown:,} of {count:,} shown."
    kept = f"{low} to {high} of {tokens} tokens, {mean:.1%} on average"
    return f"{count:,} images keep {kept}. {shown:,} of {count:,} shown, from easy to difficult."


@dataclass(frozen=True, slots=True)
class _Cell:
    """The place of a tile: its thumbnail, the bar, the count and the label, from the top down.

    Attributes:
        width: of the cell, pixels; narrower thumbnails stand in its middle.
        picture: height of the highest thumbnail, pixels; lower ones stand on the bar.
        scale: of text and spacing.
        lines: of labels, for which there is room.
        tokens: patch tokens per image.
    """

    width: int
    picture: int
    scale: float
    lines: int
    tokens: int

    def pixels(self, size: float) -> int:
        return round(size * self.scale)

    @property
    def gap(self) -> int:
        return self.pixels(16)

    @property
    def height(self) -> int:
        return self.picture + self.pixels(29 + 17 * self.lines)

    def draw(self, sheet: Image.Image, left: int, top: int, each: Tile) -> None:
        below = top + self.picture
        sheet.paste(each.picture, (left + (self.width - each.picture.width) // 2, below - each.picture.height))
        bar = below + self.pixels(5)
        sheet.paste(_TRACK, (left, bar, left + self.width, bar + self.pixels(5)))
        # Only none at all is drawn as none, and only all as all.
        filled = each.kept * self.width // self.tokens or min(each.kept, 1)
        sheet.paste(OUTLINE, (left, bar, left + filled, bar + self.pixels(5)))
        count = _line(f"{each.kept} / {self.tokens}", self.pixels(14), INK, self.width)
        count.draw(sheet, left, below + self.pixels(11))
        for number, line in enumerate(each.lines):
            below_count = below + self.pixels(29 + 17 * number)
            _line(line, self.pixels(13), _MUTED, self.width).draw(sheet, left, below_count)


def _cell_for(shown: Sequence[Tile], tokens: int) -> _Cell:
    width = max(_MIN_CELL, *(each.picture.width for each in shown))
    height = max(each.picture.height for each in shown)
    lines = max(len(each.lines) for each in shown)
    return _Cell(width, height, max(1.0, max(width, height) / _SIDE), lines, tokens)


def _columns(count: int, cell: _Cell) -> int:
    if count <= _ONE_ROW:
        return count
    rows = round(math.sqrt(count * (cell.width + cell.gap) / (cell.height + cell.gap) / _SHAPE))
    return -(-count // max(1, rows))


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of text of a size in pixels."""

    text: str
    font: Font
    size: int
    colour: tuple[int, int, int]

    @property
    def height(self) -> int:
        return round(self.size * 1.35)

    def draw(self, sheet: Image.Image, left: int, top: int) -> None:
        # By the baseline, which fonts of one size share, as they do not their height.
        ImageDraw.Draw(sheet).text((left, top + self.size), self.text, fill=self.colour, font=self.font, anchor="ls")


def _line(text: str, size: int, colour: tuple[int, int, int], width: int) -> _Line:
    """Cuts a text to a line."""
    drawn, font = legible(text, size)
    return _Line(_shortened(drawn, font, width), font, size, colour)


def _lines(text: str, size: int, colour: tuple[int, int, int], width: int) -> list[_Line]:
    """Wraps a text, and cuts words that are longer than a line."""
    drawn, font = legible(text, size)
    parts = wrapped(drawn, font, width).splitlines()
    return [_Line(_shortened(part, font, width), font, size, colour) for part in parts]


def _shortened(text: str, font: Font, width: int) -> str:
    """Cuts out the middle, as names of files often differ at their ends only."""
    if font.getlength(text) <= width:
        return text

    def cut(left: int) -> str:
        return f"{text[: left - left // 2].rstrip()}…{text[len(text) - left // 2 :].lstrip()}"

    fitting = bisect_right(range(len(text)), width, key=lambda left: math.ceil(font.getlength(cut(left))))
    return cut(max(0, fitting - 1))
