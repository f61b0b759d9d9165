"""Files and values that are no image, or a damaged one, are refused by name."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sait_deploy.errors import ImageError
from sait_deploy.images.preprocess import normalised, open_image, preprocess
from tests.images.pixels import SMALL, noise


def _unusable(folder: Path) -> dict[str, Path]:
    image = Image.fromarray(noise(64, 64, 3))
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
        preprocess([_unusable(tmp_path)[name]], SMALL)
    assert name in error.value.message and error.value.hint


@settings(max_examples=60, deadline=None)
@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF", "AVIF"]))
def test_damaged_files_raise_nothing_but_image_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, form: str
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.png"
    Image.fromarray(noise(8, 8, 3)).save(path, format=form)
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
        noise(4, 4, 3).astype(np.float32),
        noise(4, 4, 2),
        noise(4, 4, 5),
        noise(4),
        noise(2, 2, 4, 4, 3),
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
        preprocess(image, SMALL)
    assert error.value.hint


@pytest.mark.parametrize("pixels", [noise(4, 4, 3), noise(1, 4, 4, 4), noise(1, 4, 4, 3).astype(np.float32)])
def test_only_a_batch_of_colour_pixels_is_normalised(pixels: Any) -> None:
    with pytest.raises(ImageError):
        normalised(pixels, SMALL)
