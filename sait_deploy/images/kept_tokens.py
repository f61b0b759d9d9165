"""A picture of what pruning kept: the image, the image with its dropped patches faded, and the importance."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from sait_deploy.errors import InvalidArgument

_T = TypeVar("_T", bound=np.generic)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
"""What text is measured and drawn with."""

PAPER: Final = (255, 255, 255)
"""Colour of the background."""
INK: Final = (32, 32, 36)
"""Colour of the text."""
OUTLINE: Final = (255, 196, 0)
"""Colour that says kept."""

_MIN_SIDE = 224
# Darkest and lightest grey of the dropped patches, so that black in a kept patch stays darker than a dropped one.
_FADED = (0.10, 0.40)
# Of an image that is dark itself, whose kept patches would look like dropped ones: light greys in place of dark ones.
_FADED_LIGHT = (0.50, 0.80)
_DARK = 0.25
# Low contrast under the heat map, whose lightness is to tell the importance.
_BACKDROP = (0.20, 0.80)
_HEAT_SHARE = 0.70
# Anchors of the heat map in OKLab (lightness, green to red, blue to yellow): a night blue up to a pale yellow.
_HEAT = ((0.20, 0.00, -0.09), (0.40, 0.13, -0.10), (0.60, 0.19, 0.04), (0.78, 0.08, 0.13), (0.96, -0.03, 0.10))
_LMS_FROM_OKLAB = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_RGB_FROM_LMS = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)
# Pillow's own font has little beyond ASCII; these are the usual ones of Linux, macOS and Windows that have more.
_WIDER_FONTS: Final = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "segoeui.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
)


def draw_kept(
    image: NDArray[np.uint8],
    keep: NDArray[np.int32],
    grid: tuple[int, int],
    *,
    caption: str,
    importance: NDArray[np.float32] | None = None,
) -> Image.Image:
    """Draws an image beside what of it was kept.

    Panels from left to right: the image; the image with dropped patches dark and grey (light and grey in a dark
    image), and an outline around each connected region of kept ones; where importance is given, a heat map of it over
    the grey image, from the least important patch (blue) to the most (yellow), with a scale below it in percent of all
    patches' importance. Small images are enlarged by whole factors, pixel by pixel.

    Args:
        image: what the model saw, uint8 [H, W, 3].
        keep: [N], 1 where a patch token was kept, 0 where it was dropped; prefix tokens are not part of it.
        grid: rows and columns of patches, N = rows * columns.
        caption: text below the panels; lines that are too long are wrapped.
        importance: float32 [N], finite and not negative.

    Returns:
        An RGB picture whose panels are at least 224 pixels on their shorter side.

    Raises:
        InvalidArgument: a shape, dtype or value does not fit.
    """
    check_panel(image, keep, grid, importance)
    scale = -(-_MIN_SIDE // min(image.shape[:2]))
    image = enlarged(image, scale, scale)
    patch = image.shape[0] // grid[0], image.shape[1] // grid[1]
    kept = enlarged(keep.reshape(grid).astype(bool), *patch)
    panels = [image, _with_outline(faded(image, kept), kept, max(1, min(patch) // 14))]
    if importance is not None:
        panels.append(_heat_map(image, importance.reshape(grid), patch))
    total = 0.0 if importance is None else float(importance.sum())
    extremes = None if importance is None else (float(importance.min()), float(importance.max()))
    ends = None if extremes is None or not total else tuple(f"{100 * one / total:.2g} %" for one in extremes)
    return _beside_each_other(panels, caption, ends)


def check_panel(
    image: NDArray[np.uint8],
    keep: NDArray[np.int32],
    grid: tuple[int, int],
    importance: NDArray[np.float32] | None = None,
) -> None:
    """Refuses arguments of ``draw_kept`` that do not fit each other.

    Raises:
        InvalidArgument: a shape, dtype or value does not fit.
    """
    rows, columns = grid
    if rows < 1 or columns < 1:
        raise InvalidArgument(f"a grid of {rows} x {columns} has no patches", "give rows and columns of patches")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InvalidArgument(f"image {image.dtype} {list(image.shape)} is not uint8 [H, W, 3]")
    if image.shape[0] % rows or image.shape[1] % columns:
        raise InvalidArgument(
            f"an image of {image.shape[0]} x {image.shape[1]} pixels does not divide into {rows} x {columns} patches",
            "give the image as it was cropped for the model",
        )
    if keep.shape != (rows * columns,):
        raise InvalidArgument(
            f"keep {list(keep.shape)} is not one value for each of {rows * columns} patches", "leave prefix tokens out"
        )
    if keep.dtype.kind not in "biu" or not np.isin(keep, (0, 1)).all():
        raise InvalidArgument("keep has values other than 1 (kept) and 0 (dropped)")
    if importance is None:
        return
    if importance.shape != keep.shape:
        raise InvalidArgument(f"importance {list(importance.shape)} is not shaped as keep {list(keep.shape)}")
    if importance.dtype.kind != "f" or not (np.isfinite(importance) & (importance >= 0)).all():
        raise InvalidArgument("importance has values that are negative or no numbers")


def enlarged(pixels: NDArray[_T], rows: int, columns: int) -> NDArray[_T]:
    """Repeats each pixel of [H, W, ...] over a rectangle: [H * rows, W * columns, ...]."""
    return pixels.repeat(rows, axis=0).repeat(columns, axis=1)


def _grey(image: NDArray[np.uint8], darkest: float, lightest: float) -> NDArray[np.float32]:
    """Returns the image without colour, in shades from darkest to lightest (of 0 to 1), float32 [H, W, 1]."""
    luma = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[:, :, None]
    return darkest + luma * ((lightest - darkest) / 255)


def faded(image: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns an image uint8 [H, W, 3] that is grey where kept, bool [H, W], is not set."""
    is_dark = float(np.median(_grey(image, 0, 1))) < _DARK
    grey = np.rint(_grey(image, *(_FADED_LIGHT if is_dark else _FADED)) * 255).astype(np.uint8)
    return np.where(kept[:, :, None], image, grey)


def _with_outline(panel: NDArray[np.uint8], kept: NDArray[np.bool_], width: int) -> NDArray[np.uint8]:
    inner, outer = _rim(kept, width), _rim(kept, 2 * width)
    panel[outer] = panel[outer] // 3
    panel[inner] = OUTLINE
    return panel


def _rim(region: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Returns the pixels of a region within ``width`` of its edge; the edge of the panel is one too."""
    padded = Image.fromarray(np.pad(region, width).astype(np.uint8))
    inside = np.asarray(padded.filter(ImageFilter.MinFilter(2 * width + 1)))[width:-width, width:-width]
    rim: NDArray[np.bool_] = region & (inside == 0)
    return rim


def _heat_map(image: NDArray[np.uint8], importance: NDArray[np.float32], patch: tuple[int, int]) -> NDArray[np.uint8]:
    low, high = float(importance.min()), float(importance.max())
    share = (importance - low) / (high - low) if high > low else np.zeros_like(importance)
    colours = _heat_colours()[np.rint(share * 255).astype(np.intp)]
    blended = _HEAT_SHARE * enlarged(colours, *patch) + (1 - _HEAT_SHARE) * _grey(image, *_BACKDROP)
    pixels: NDArray[np.uint8] = np.rint(blended * 255).astype(np.uint8)
    return pixels


@cache
def _heat_colours() -> NDArray[np.float32]:
    """Returns sRGB in [0, 1], float32 [256, 3], in even steps of OKLab, where distance is perceived difference."""
    anchors = np.array(_HEAT)
    lengths = np.linalg.norm(np.diff(anchors, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    at = np.linspace(0, along[-1], 256)
    oklab = np.stack([np.interp(at, along, channel) for channel in anchors.T], axis=1)
    linear = ((oklab @ np.array(_LMS_FROM_OKLAB).T) ** 3 @ np.array(_RGB_FROM_LMS).T).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(srgb, dtype=np.float32)


def _beside_each_other(
    panels: list[NDArray[np.uint8]], caption: str, ends: tuple[str, ...] | None = None
) -> Image.Image:
    """Lays out panels with a caption below them, and below the last one the ends of its scale where there are some."""
    height, width = panels[0].shape[:2]
    gap = max(8, min(height, width) // 28)
    font = ImageFont.load_default(size=max(14.0, min(height, width) / 15))
    total, last = len(panels) * width + (len(panels) + 1) * gap, (len(panels) - 1) * (width + gap) + gap
    beside = total - 2 * gap if ends is None else last - 2 * gap
    text = wrapped(caption, font, beside)
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    bottom = probe.multiline_textbbox((0, 0), text, font=font)[3] + gap if text else 0.0
    if ends is not None:
        bottom = max(bottom, gap + probe.textbbox((0, 0), "0 %", font=font)[3] + gap)
    picture = Image.new("RGB", (total, height + 2 * gap + round(bottom)), PAPER)
    for index, panel in enumerate(panels):
        picture.paste(Image.fromarray(panel), (gap + index * (width + gap), gap))
    if text:
        ImageDraw.Draw(picture).multiline_text((gap, height + 2 * gap), text, fill=INK, font=font)
    if ends is not None:
        _draw_scale(picture, (last, height + gap + gap // 2), width, gap, ends, font)
    return picture


def _draw_scale(
    picture: Image.Image, corner: tuple[int, int], width: int, height: int, ends: tuple[str, ...], font: Font
) -> None:
    """Draws the heat map's colours from left to right, and below them what the first and the last one stand for."""
    left, top = corner
    at = np.rint(np.linspace(0, 255, width)).astype(np.intp)
    blended = _HEAT_SHARE * _heat_colours()[at] + (1 - _HEAT_SHARE) * sum(_BACKDROP) / 2
    bar = enlarged(np.rint(blended * 255).astype(np.uint8)[None], height, 1)
    picture.paste(Image.fromarray(bar), corner)
    drawing, below = ImageDraw.Draw(picture), top + height + height // 4
    drawing.text((left, below), ends[0], fill=INK, font=font)
    drawing.text((left + width, below), ends[-1], fill=INK, font=font, anchor="ra")


def wrapped(text: str, font: Font, width: int) -> str:
    """Breaks lines at spaces so that they fit; a single word that does not is left as it is."""
    lines: list[str] = []
    for given in text.strip().splitlines():
        line = ""
        for word in given.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


def legible(text: str, size: int) -> tuple[str, Font]:
    """Returns a text on one line with the installed font that has most of it, and without accents that none has."""
    # A file's name can hold bytes that are no text, which Python keeps as surrogates and no font can draw.
    line = unicodedata.normalize("NFC", " ".join(text.encode(errors="replace").decode().split()))
    if line.isascii():
        return line, _fonts(size)[0]
    font = max(_fonts(size), key=lambda each: sum(_has(each, character) for character in line))
    return "".join(character if _has(font, character) else _bare(character) for character in line), font


def _bare(character: str) -> str:
    parts = unicodedata.normalize("NFKD", character)
    return "".join(part for part in parts if not unicodedata.combining(part))


@cache
def _fonts(size: int) -> tuple[Font, ...]:
    fonts: list[Font] = [ImageFont.load_default(size=size)]
    for name in _WIDER_FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:  # not installed
            continue
    return tuple(fonts)


@cache
def _has(font: Font, character: str) -> bool:
    """Whether a font has a character, rather than drawing the box that stands for missing ones."""
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))
