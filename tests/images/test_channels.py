"""Images of one, three and four channels: how they are decoded, what is assumed, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.images.dataset import BRIGHTNESS, shipped_dataset
from sait_deploy.images.preprocess import CropMode, Interpolation, Preprocessing, open_image, preprocess, seen, shown
from sait_deploy.images.preprocessing_choice import FROM_NAME, PreprocessingChoice, for_channels, merged

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)


def options(channels: int, crop_mode: CropMode = CropMode.CENTER) -> Preprocessing:
    """A preprocessing whose channels have a mean and std each."""
    mean, std = tuple(0.1 * (i + 1) for i in range(channels)), tuple(0.2 + 0.1 * i for i in range(channels))
    return Preprocessing((16, 16), (20, 20), crop_mode, Interpolation.BICUBIC, True, mean, std)


@pytest.mark.parametrize("channels", [1, 4])
def test_pixels_are_those_of_timms_transform(channels: int) -> None:
    image = Image.fromarray(PIXELS).convert({1: "L", 4: "RGBA"}[channels])
    chosen = options(channels)
    transform = create_transform(
        input_size=(channels, 16, 16), mean=chosen.mean, std=chosen.std, interpolation="bicubic", crop_pct=0.8
    )
    np.testing.assert_array_equal(preprocess(image, chosen)[0], transform(image).numpy())


@pytest.mark.parametrize("crop_mode", CropMode)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_crop_gives_the_models_channels(channels: int, crop_mode: CropMode) -> None:
    pixels = seen(PIXELS, options(channels, crop_mode))
    assert (pixels.shape, pixels.dtype) == ((16, 16, channels), np.uint8)
    assert preprocess([PIXELS, PIXELS], options(channels, crop_mode)).shape == (2, channels, 16, 16)
    assert shown(pixels).shape == (16, 16, 3)


def test_grey_arrays_and_palettes(tmp_path: Path) -> None:
    grey = PIXELS[:, :, :1]
    np.testing.assert_array_equal(np.asarray(open_image(grey, 1)), grey[:, :, 0])
    np.testing.assert_array_equal(np.asarray(open_image(grey[:, :, 0], 1)), grey[:, :, 0])
    Image.fromarray(PIXELS).quantize(8).save(tmp_path / "palette.png")
    assert open_image(tmp_path / "palette.png", 1).mode == "L"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_fourth_channel_is_not_made_up(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PIXELS).convert("RGB").convert(mode).save(tmp_path / "image.tiff")
    with pytest.raises(ImageError, match=rf"image\.tiff has no fourth channel \({mode}\)") as caught:
        open_image(tmp_path / "image.tiff", 4)
    assert "alpha" in caught.value.hint


def test_transparency_of_any_kind_is_a_fourth_channel(tmp_path: Path) -> None:
    for name, image in (
        ("grey.png", Image.fromarray(PIXELS).convert("LA")),
        ("palette.png", Image.fromarray(PIXELS).quantize(8)),
    ):
        image.save(tmp_path / name, transparency=bytes(8)) if name == "palette.png" else image.save(tmp_path / name)
        assert open_image(tmp_path / name, 4).mode == "RGBA"


def test_photographs_have_their_brightness_in_a_fourth_channel_and_it_is_said() -> None:
    found = shipped_dataset("vit_small_patch16_224", 4)
    assert found.source == BRIGHTNESS
    pixels = np.asarray(found.images[0])
    np.testing.assert_array_equal(pixels[:, :, 3], np.asarray(open_image(pixels[:, :, :3], 1)))


def test_means_of_other_numbers_of_channels() -> None:
    assert for_channels((0.1, 0.2, 0.6), 3) == (0.1, 0.2, 0.6)
    assert for_channels((0.1, 0.2, 0.6), 1) == pytest.approx((0.3,))
    assert for_channels((0.1, 0.2, 0.6), 4) == pytest.approx((0.1, 0.2, 0.6, 0.3))
    assert for_channels((0.5,), 4) == (0.5,) * 4


def test_what_is_given_has_to_fit() -> None:
    found, sources = merged(options(4), FROM_NAME, PreprocessingChoice(mean=(0.5,)))
    assert (found.mean, sources["mean"], sources["std"]) == ((0.5,) * 4, "given", f"{FROM_NAME} for 4 channels")
    with pytest.raises(InvalidArgument, match=r"mean that is given has 3 numbers.*have 1 channel"):
        merged(options(1), FROM_NAME, PreprocessingChoice(mean=(0.5, 0.5, 0.5)))
    with pytest.raises(InvalidArgument, match="not one, three or four numbers each"):
        Preprocessing((16, 16), (16, 16), CropMode.CENTER, Interpolation.BICUBIC, True, (0.5,) * 3, (0.5,))
