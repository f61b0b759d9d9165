"""The evaluation transform against timm's own, and the values that it makes of images."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import (
    CropMode,
    Interpolation,
    Preprocessing,
    cropped,
    normalised,
    open_image,
    preprocess,
)
from tests.images.pixels import MEAN, SMALL, STD, noise

_MODES = tuple(CropMode)
_FILTERS = (Interpolation.BICUBIC, Interpolation.BILINEAR)


def _options(
    size: tuple[int, int], crop_pct: float, mode: CropMode, interpolation: Interpolation = Interpolation.BICUBIC
) -> Preprocessing:
    resize = (math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct))
    return Preprocessing(size, resize, mode, interpolation, True, MEAN, STD)


@functools.cache
def _reference(size: tuple[int, int], crop_pct: float, mode: str, interpolation: str) -> Any:
    """timm's transform of an RGB Pillow image to a normalised tensor [3, H, W]."""
    data = pytest.importorskip("timm.data")
    config = {"input_size": (3, *size), "crop_pct": crop_pct, "crop_mode": mode, "interpolation": interpolation}
    return data.create_transform(**config, mean=MEAN, std=STD, is_training=False)


def _assert_as_timm(
    image: Image.Image, size: tuple[int, int], crop_pct: float, mode: CropMode, interpolation: Interpolation
) -> None:
    options = _options(size, crop_pct, mode, interpolation)
    reference = _reference(size, crop_pct, mode.value, interpolation.value)
    expected = reference(image.convert("RGB")).numpy()
    np.testing.assert_array_equal(preprocess(image, options), expected[None])


@functools.cache
def _photograph(name: str) -> NDArray[np.uint8]:
    data = pytest.importorskip("skimage.data")
    return np.asarray(getattr(data, name)())


@pytest.mark.parametrize("interpolation", _FILTERS)
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "camera"])
def test_photographs_equal_timm(name: str, mode: CropMode, crop_pct: float, interpolation: Interpolation) -> None:
    _assert_as_timm(Image.fromarray(_photograph(name)), (224, 224), crop_pct, mode, interpolation)


@pytest.mark.parametrize("interpolation", list(Interpolation))
@pytest.mark.parametrize("mode", _MODES)
def test_every_filter_and_a_model_that_is_not_square_equal_timm(mode: CropMode, interpolation: Interpolation) -> None:
    for image in (_photograph("coffee"), _photograph("coffee").transpose(1, 0, 2)):
        _assert_as_timm(Image.fromarray(image), (96, 160), 0.9, mode, interpolation)


@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize(
    ("width", "height"), [(61, 90), (90, 61), (33, 33), (31, 45), (5, 7), (20, 3), (1, 25), (25, 1), (1, 1)]
)
def test_odd_shapes_equal_timm(width: int, height: int, mode: CropMode, crop_pct: float) -> None:
    for interpolation in _FILTERS:
        _assert_as_timm(Image.fromarray(noise(height, width, 3)), (32, 32), crop_pct, mode, interpolation)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.sampled_from([(32, 32), (32, 48), (49, 33)]),
    crop_pct=st.sampled_from([0.875, 0.9, 0.95, 1.0, 1.15]),
    mode=st.sampled_from(_MODES),
    interpolation=st.sampled_from(_FILTERS),
)
def test_all_sizes_equal_timm(
    width: int, height: int, size: tuple[int, int], crop_pct: float, mode: CropMode, interpolation: Interpolation
) -> None:
    if mode is CropMode.BORDER and max(width, height) > 25 * min(width, height):
        width = height  # the reference rounds an edge to no pixels there, and fails
    _assert_as_timm(Image.fromarray(noise(height, width, 3)), size, crop_pct, mode, interpolation)


@pytest.mark.parametrize("pil_mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_pixel_type_equals_timm(pil_mode: str) -> None:
    image = Image.fromarray(noise(40, 30, 3))
    wide = np.random.default_rng(0).integers(0, 400, (40, 30))
    if pil_mode in ("I;16", "I", "F"):
        image = Image.fromarray(wide.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[pil_mode]))
    else:
        image = image.convert(pil_mode)
    assert image.mode == pil_mode
    _assert_as_timm(image, (24, 24), 0.875, CropMode.CENTER, Interpolation.BICUBIC)


@pytest.mark.parametrize(
    ("name", "pil_mode"),
    [
        ("grey16.png", "I;16"),
        ("alpha.png", "RGBA"),
        ("palette.png", "P"),
        ("cmyk.jpg", "CMYK"),
        ("grey.JPEG", "L"),
        ("a.bmp", "RGB"),
        ("a.webp", "RGB"),
        ("a.tif", "RGB"),
        ("a.ppm", "RGB"),
        ("jpeg_by_another_name.png", "RGB"),
    ],
)
def test_files_equal_timm(tmp_path: Path, name: str, pil_mode: str) -> None:
    path = tmp_path / name
    image = Image.fromarray(_photograph("chelsea")).resize((90, 60))
    if pil_mode == "I;16":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 2).save(path)
    else:
        image.convert(pil_mode).save(path, format="JPEG" if "another" in name else None)
    with Image.open(path) as opened:
        assert opened.mode == pil_mode
        expected = _reference((48, 48), 0.9, "center", "bicubic")(opened.convert("RGB")).numpy()
    options = _options((48, 48), 0.9, CropMode.CENTER)
    np.testing.assert_array_equal(preprocess(str(path), options), expected[None])


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    image = Image.fromarray(noise(12, 12, 3)).quantize(16)
    image.save(path, transparency=bytes(range(16)))
    np.testing.assert_array_equal(np.asarray(open_image(path)), np.asarray(image.convert("RGB")))


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(20, 40, 3)).save(path, exif=exif)
    assert open_image(path).size == (40, 20)


def test_one_several_and_arrays_agree(tmp_path: Path) -> None:
    pixels = noise(3, 20, 31, 3)
    path = tmp_path / "first.png"
    Image.fromarray(pixels[0]).save(path)
    batch = preprocess(pixels, SMALL)
    assert batch.shape == (3, 3, 8, 8) and batch.dtype == np.float32 and batch.flags.c_contiguous
    np.testing.assert_array_equal(batch[:1], preprocess(path, SMALL))
    mixed = preprocess((image for image in (path, Image.fromarray(pixels[1]), pixels[2])), SMALL)
    np.testing.assert_array_equal(batch, mixed)
    rgba = np.concatenate([pixels[0], noise(20, 31, 1)], axis=2)
    np.testing.assert_array_equal(preprocess(rgba, SMALL), batch[:1])
    grey = preprocess(pixels[0, :, :, 0], SMALL)
    np.testing.assert_array_equal(grey, preprocess(np.repeat(pixels[0, :, :, :1], 3, axis=2), SMALL))
    assert preprocess([], SMALL).shape == (0, 3, 8, 8)


def test_cropped_pixels_normalise_to_the_model_input() -> None:
    image = Image.fromarray(noise(30, 20, 3))
    seen = cropped(image, SMALL)
    assert seen.size == (8, 8) and seen.mode == "RGB"
    np.testing.assert_array_equal(normalised(np.asarray(seen)[None], SMALL), preprocess(image, SMALL))
    white = normalised(np.full((1, 1, 1, 3), 255, np.uint8), SMALL)
    np.testing.assert_allclose(white[0, :, 0, 0], (1 - np.array(MEAN)) / np.array(STD), rtol=1e-6)


def test_a_border_too_thin_for_the_reference_keeps_one_pixel() -> None:
    options = _options((8, 8), 1.0, CropMode.BORDER)
    seen = np.asarray(cropped(Image.new("RGB", (1, 900), "white"), options))
    assert (seen == 255).all(axis=2).sum() == 8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", (0, 8)),
        ("resize", (8,)),
        ("mean", (0.5,)),
        ("mean", (0.5, 0.5, float("nan"))),
        ("std", (1.0, 1.0, 0.0)),
        ("antialias", False),
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    fields: dict[str, Any] = {name: getattr(SMALL, name) for name in Preprocessing.__dataclass_fields__}
    with pytest.raises(InvalidArgument):
        Preprocessing(**(fields | {field: value}))
