"""Pictures of kept patches: what each panel shows, and which inputs are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFont

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.kept_tokens import draw_kept, legible

_GRID = (4, 4)
_SIDE = 56
_IMAGE = np.random.default_rng(0).integers(0, 200, (224, 224, 3), dtype=np.uint8)
_ALL = np.ones(16, dtype=np.int32)


def _panels(picture: Image.Image, count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Cuts out the panels, which stand side by side with one margin around and between them."""
    pixels = np.asarray(picture)
    gap = (picture.width - count * width) // (count + 1)
    assert picture.width == count * width + (count + 1) * gap
    starts = [gap + index * (width + gap) for index in range(count)]
    return [pixels[gap : gap + height, start : start + width] for start in starts]


def _patch(panel: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    return panel[row * _SIDE : (row + 1) * _SIDE, column * _SIDE : (column + 1) * _SIDE]


def _kept(*patches: tuple[int, int]) -> NDArray[np.int32]:
    keep = np.zeros(_GRID, dtype=np.int32)
    for patch in patches:
        keep[patch] = 1
    return keep.ravel()


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(8, 8, 28), (32, 48, 7), (100, 60, 4), (224, 224, 1), (224, 448, 1), (384, 300, 1)]
)
def test_panels_show_the_image_in_whole_factors_of_its_size(height: int, width: int, scale: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    grid = (height // 4, width // 4)
    keep = np.ones(grid[0] * grid[1], dtype=np.int32)
    shape = height * scale, width * scale
    assert min(shape) >= 224
    first, second = _panels(draw_kept(image, keep, grid, caption=""), 2, *shape)
    np.testing.assert_array_equal(first, image.repeat(scale, axis=0).repeat(scale, axis=1))
    margin = 8 * scale
    inside = np.s_[margin:-margin, margin:-margin]
    np.testing.assert_array_equal(second[inside], first[inside])


def test_dropped_patches_are_dark_and_grey_and_kept_ones_untouched() -> None:
    _, panel = _panels(draw_kept(_IMAGE, _kept((1, 1), (2, 1)), _GRID, caption=""), 2, 224, 224)
    for row, column in np.ndindex(_GRID):
        shown, middle = _patch(panel, row, column), np.s_[12:-12, 12:-12]
        if (row, column) in ((1, 1), (2, 1)):
            np.testing.assert_array_equal(shown[middle], _patch(_IMAGE, row, column)[middle])
        else:
            assert np.ptp(shown, axis=2).max() == 0 and shown.max() <= 110
            assert np.unique(shown).size > 20, "what was dropped can still be made out"


def test_dropped_patches_of_a_dark_image_are_light_and_grey() -> None:
    dark = np.random.default_rng(2).integers(0, 40, (224, 224, 3), dtype=np.uint8)
    _, panel = _panels(draw_kept(dark, _kept((1, 1)), _GRID, caption=""), 2, 224, 224)
    middle = np.s_[12:-12, 12:-12]
    np.testing.assert_array_equal(_patch(panel, 1, 1)[middle], _patch(dark, 1, 1)[middle])
    assert _patch(panel, 3, 3).min() > 100 > _patch(panel, 1, 1)[middle].max()


def test_a_heat_map_has_a_scale_below_it() -> None:
    importance = np.full(16, 0.04, dtype=np.float32)
    importance[3] = 0.4
    picture = np.asarray(draw_kept(_IMAGE, _ALL, _GRID, caption="", importance=importance))
    bare = np.asarray(draw_kept(_IMAGE, _ALL, _GRID, caption=""))
    below = picture[bare.shape[0] - 4 :, -232:-8].astype(int)
    assert picture.shape[0] > bare.shape[0]
    assert below.sum(axis=2).min() < 300, "there is text"
    scale = picture[224 + 8 + 6, -232:-8].astype(int)
    assert scale[-1].sum() > scale[0].sum() and len(np.unique(scale, axis=0)) > 50


def test_heat_map_is_uniform_where_importance_is_and_follows_the_patches() -> None:
    grey = np.full((224, 224, 3), 90, dtype=np.uint8)
    even = np.full(16, 1 / 16, dtype=np.float32)
    panel = _panels(draw_kept(grey, _ALL, _GRID, caption="", importance=even), 3, 224, 224)[2]
    assert np.unique(panel.reshape(-1, 3), axis=0).shape[0] == 1
    peak = even.copy()
    peak[6] = 0.5
    panel = _panels(draw_kept(grey, _ALL, _GRID, caption="", importance=peak), 3, 224, 224)[2]
    brightest = np.argwhere(panel.sum(axis=2) == panel.sum(axis=2).max())
    assert brightest.min(axis=0).tolist() == [56, 112] and brightest.max(axis=0).tolist() == [111, 167]


def test_caption_stands_below_and_is_wrapped_to_the_panels() -> None:
    bare = draw_kept(_IMAGE, _ALL, _GRID, caption="  ")
    short = draw_kept(_IMAGE, _ALL, _GRID, caption="kept 16 of 16 gypq")
    long = draw_kept(_IMAGE, _ALL, _GRID, caption="kept all of the patch tokens " * 8)
    assert bare.width == short.width == long.width
    assert bare.height < short.height < long.height - 20
    np.testing.assert_array_equal(np.asarray(short)[: bare.height], np.asarray(bare))
    for picture in (short, long):
        assert (np.asarray(picture.convert("L"))[bare.height :] < 128).any(), "there is text"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", "plain text"),
        (" two\n lines\t", "two lines"),
        ("bad\udc80name", "bad?name"),
        ("cafe\u0301", "caf\xe9"),
        ("", ""),
    ],
)
def test_text_is_made_legible(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    font = legible("plain", 31)[1]
    assert legible(text, 31)[0] in (expected, expected.replace("\xe9", "e"))
    assert legible(text, 31)[1] is font or not expected.isascii()

    from_file = ImageFont.truetype

    def none_installed(font: Any, *arguments: Any, **options: Any) -> ImageFont.FreeTypeFont:
        if isinstance(font, str):
            raise OSError(f"{font} is not installed")
        return from_file(font, *arguments, **options)

    monkeypatch.setattr(ImageFont, "truetype", none_installed)
    # Of a size that no font has been looked for yet.
    assert legible(text, 1000 + len(text))[0] == expected.replace("\xe9", "e")


def test_inputs_are_left_as_they_were() -> None:
    image, keep, importance = _IMAGE.copy(), _kept((0, 0)), np.linspace(0, 1, 16, dtype=np.float32)
    for array in (image, keep, importance):
        array.flags.writeable = False
    draw_kept(image, keep, _GRID, caption="x", importance=importance)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": _IMAGE.astype(np.float32)},
        {"image": _IMAGE[:, :, 0]},
        {"image": np.zeros((0, 224, 3), np.uint8)},
        {"image": _IMAGE[:222]},
        {"grid": (0, 4)},
        {"grid": (4, 8)},
        {"grid": (3, 4)},
        {"keep": np.ones(17, np.int32)},
        {"keep": np.ones((4, 4), np.int32)},
        {"keep": np.full(16, 2, np.int32)},
        {"keep": np.ones(16, np.float32)},
        {"importance": np.ones(15, np.float32)},
        {"importance": np.ones(16, np.int32)},
        {"importance": np.full(16, np.nan, np.float32)},
        {"importance": np.full(16, -1, np.float32)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_inputs_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    fitting: dict[str, Any] = {"image": _IMAGE, "keep": _ALL, "grid": _GRID, "caption": "x"}
    with pytest.raises(InvalidArgument):
        draw_kept(**(fitting | wrong))
