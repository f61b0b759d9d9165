"""The evaluation transform against timm's own, and what happens to images that cannot be used."""

from __future__ import annotations

import functools
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, features

from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.images.preprocess import (
    CropMode,
    ImageSet,
    Interpolation,
    Preprocessing,
    cropped,
    list_images,
    normalised,
    open_image,
    preprocess,
)

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SMALL = Preprocessing((8, 8), (9, 9), CropMode.CENTER, Interpolation.BICUBIC, True, _MEAN, _STD)
_MODES = tuple(CropMode)
_FILTERS = (Interpolation.BICUBIC, Interpolation.BILINEAR)


def _options(
    size: tuple[int, int], crop_pct: float, mode: CropMode, interpolation: Interpolation = Interpolation.BICUBIC
) -> Preprocessing:
    resize = (math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct))
    return Preprocessing(size, resize, mode, interpolation, True, _MEAN, _STD)


@functools.cache
def _reference(size: tuple[int, int], crop_pct: float, mode: str, interpolation: str) -> Any:
    """timm's transform of an RGB Pillow image to a normalised tensor [3, H, W]."""
    data = pytest.importorskip("timm.data")
    config = {"input_size": (3, *size), "crop_pct": crop_pct, "crop_mode": mode, "interpolation": interpolation}
    return data.create_transform(**config, mean=_MEAN, std=_STD, is_training=False)


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


def _noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


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
        _assert_as_timm(Image.fromarray(_noise(height, width, 3)), (32, 32), crop_pct, mode, interpolation)


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
    _assert_as_timm(Image.fromarray(_noise(height, width, 3)), size, crop_pct, mode, interpolation)


@pytest.mark.parametrize("pil_mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_pixel_type_equals_timm(pil_mode: str) -> None:
    image = Image.fromarray(_noise(40, 30, 3))
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
    image = Image.fromarray(_noise(12, 12, 3)).quantize(16)
    image.save(path, transparency=bytes(range(16)))
    np.testing.assert_array_equal(np.asarray(open_image(path)), np.asarray(image.convert("RGB")))


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_noise(20, 40, 3)).save(path, exif=exif)
    assert open_image(path).size == (40, 20)


def test_one_several_and_arrays_agree(tmp_path: Path) -> None:
    pixels = _noise(3, 20, 31, 3)
    path = tmp_path / "first.png"
    Image.fromarray(pixels[0]).save(path)
    batch = preprocess(pixels, _SMALL)
    assert batch.shape == (3, 3, 8, 8) and batch.dtype == np.float32 and batch.flags.c_contiguous
    np.testing.assert_array_equal(batch[:1], preprocess(path, _SMALL))
    mixed = preprocess((image for image in (path, Image.fromarray(pixels[1]), pixels[2])), _SMALL)
    np.testing.assert_array_equal(batch, mixed)
    rgba = np.concatenate([pixels[0], _noise(20, 31, 1)], axis=2)
    np.testing.assert_array_equal(preprocess(rgba, _SMALL), batch[:1])
    grey = preprocess(pixels[0, :, :, 0], _SMALL)
    np.testing.assert_array_equal(grey, preprocess(np.repeat(pixels[0, :, :, :1], 3, axis=2), _SMALL))
    assert preprocess([], _SMALL).shape == (0, 3, 8, 8)


def test_cropped_pixels_normalise_to_the_model_input() -> None:
    image = Image.fromarray(_noise(30, 20, 3))
    seen = cropped(image, _SMALL)
    assert seen.size == (8, 8) and seen.mode == "RGB"
    np.testing.assert_array_equal(normalised(np.asarray(seen)[None], _SMALL), preprocess(image, _SMALL))
    white = normalised(np.full((1, 1, 1, 3), 255, np.uint8), _SMALL)
    np.testing.assert_allclose(white[0, :, 0, 0], (1 - np.array(_MEAN)) / np.array(_STD), rtol=1e-6)


def test_a_border_too_thin_for_the_reference_keeps_one_pixel() -> None:
    options = _options((8, 8), 1.0, CropMode.BORDER)
    seen = np.asarray(cropped(Image.new("RGB", (1, 900), "white"), options))
    assert (seen == 255).all(axis=2).sum() == 8


def _unusable(folder: Path) -> dict[str, Path]:
    image = Image.fromarray(_noise(64, 64, 3))
    png, jpeg = folder / "whole.png", folder / "whole.jpg"
    image.save(png)
    image.save(jpeg)
    image.save(folder / "other.tga")
    (folder / "cut.png").write_bytes(png.read_bytes()[:-2000])
    (folder / "cut.jpg").write_bytes(jpeg.read_bytes()[:-2000])
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + bytes(64))
    broken = bytearray(png.read_bytes())
    broken[60:90] = bytes(30)
    (folder / "broken.png").write_bytes(broken)
    return {path.name: path for path in folder.iterdir()} | {"missing.png": folder / "missing.png"}


@pytest.mark.parametrize(
    "name",
    [
        "missing.png",
        "cut.png",
        "cut.jpg",
        "text.png",
        "empty.png",
        "folder.png",
        "pipe.png",
        "bomb.png",
        "broken.png",
        "other.tga",
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError) as error:
        preprocess([_unusable(tmp_path)[name]], _SMALL)
    assert name in error.value.message and error.value.hint


@settings(max_examples=60, deadline=None)
@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF", "AVIF"]))
def test_damaged_files_raise_nothing_but_image_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, form: str
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.png"
    Image.fromarray(_noise(8, 8, 3)).save(path, format=form)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        image = open_image(path)
    except ImageError as error:
        assert str(path) in error.message
    else:
        assert image.mode == "RGB"


@pytest.mark.parametrize(
    "image",
    [
        _noise(4, 4, 3).astype(np.float32),
        _noise(4, 4, 2),
        _noise(4, 4, 5),
        _noise(4),
        _noise(2, 2, 4, 4, 3),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("RGB", (0, 4)),
        Image.new("RGB", (1, 2_000_000)),
        7,
        [None],
    ],
    ids=lambda image: str(getattr(image, "shape", getattr(image, "size", image))),
)
def test_values_that_are_no_image_are_refused(image: Any) -> None:
    with pytest.raises(ImageError) as error:
        preprocess(image, _SMALL)
    assert error.value.hint


@pytest.mark.parametrize("pixels", [_noise(4, 4, 3), _noise(1, 4, 4, 4), _noise(1, 4, 4, 3).astype(np.float32)])
def test_only_a_batch_of_colour_pixels_is_normalised(pixels: Any) -> None:
    with pytest.raises(ImageError):
        normalised(pixels, _SMALL)


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
    fields: dict[str, Any] = {name: getattr(_SMALL, name) for name in Preprocessing.__dataclass_fields__}
    with pytest.raises(InvalidArgument):
        Preprocessing(**(fields | {field: value}))


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_class_folders_give_labels(tmp_path: Path) -> None:
    _touch(tmp_path, "b/2.JPG", "b/1.png", "a/z.webp", "a/notes.txt", "a/.hidden.png", ".cache/x.png", "readme.md")
    (tmp_path / "ab").mkdir()
    found = list_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == ["a/z.webp", "b/1.png", "b/2.JPG"]
    assert found.classes == ("a", "ab", "b") and found.labels == (0, 2, 2)


@pytest.mark.parametrize("extra", ["top.png", "a/deeper/x.tiff"])
def test_other_layouts_have_no_classes(tmp_path: Path, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a/x.png", extra)
    expected = tuple(sorted([Path("a/x.png"), Path(extra)]))
    monkeypatch.chdir(tmp_path)
    assert list_images(Path()) == ImageSet(expected, None, None)
    assert list_images(tmp_path).paths == tuple(tmp_path / path for path in expected)


def test_suffixes_are_those_that_pillow_reads(tmp_path: Path) -> None:
    names = ["a.jfif", "b.GIF", "c.pgm", "d.webp", "e.jpe", "f.pnm", "g.tif"]
    kinds = {
        ".jfif": "JPEG",
        ".gif": "GIF",
        ".pgm": "PPM",
        ".webp": "WEBP",
        ".jpe": "JPEG",
        ".pnm": "PPM",
        ".tif": "TIFF",
    }
    if features.check("avif"):
        names.append("h.avif")
        kinds[".avif"] = "AVIF"
    pixels = np.full((8, 8, 3), 200, np.uint8)
    for name in names:
        Image.fromarray(pixels).save(tmp_path / name, format=kinds[Path(name).suffix.lower()])
    _touch(tmp_path, "x.heic", "y.HEIC", "z.txt", "no_suffix", "measured.pfm")
    found = list_images(tmp_path)
    assert [path.name for path in found.paths] == names
    assert found.others == {".heic": 2, ".txt": 1, "": 1, ".pfm": 1}
    for path in found.paths:
        np.testing.assert_allclose(np.asarray(open_image(path)), pixels, atol=3)


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    _touch(tmp_path, "x.heic", "y.heic")
    with pytest.raises(ImageError) as refused:
        list_images(tmp_path)
    assert refused.value.hint.endswith("and found 2 .heic")


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    _touch(tmp_path, ".odd")
    assert list_images(tmp_path / ".odd") == ImageSet((tmp_path / ".odd",), None, None)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    _touch(tmp_path, "elsewhere/x.png", "root/b/y.png")
    (tmp_path / "root/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/b/back").symlink_to(tmp_path / "root")
    found = list_images(tmp_path / "root")
    assert [path.name for path in found.paths] == ["x.png", "y.png"] and found.classes == ("a", "b")


def test_folders_without_images_are_errors(tmp_path: Path) -> None:
    _touch(tmp_path, "notes.txt")
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ImageError, match=path.name) as error:
            list_images(path)
        assert error.value.hint
