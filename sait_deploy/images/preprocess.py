"""From an image file to a model's input: the evaluation transform of the model's checkpoint, in NumPy and Pillow.

It decodes, resizes, crops and normalises as timm's evaluation transform on Pillow images does, with the same roundings,
so that a model sees the same pixels where it is deployed as where its accuracy was measured. The module is long because
those steps round in dependence of each other and are read together.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.images.formats import check_file, files_under, open_file, readable, suffixes
from sait_deploy.system.option_values import check_options

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A file, a Pillow image of any mode, or uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]."""

_ARRAYS = "an image is uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], a batch uint8 [B, H, W, C]"

MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of the images that a model of so many channels takes."""


class CropMode(StrEnum):
    """How an image of any shape becomes one of the model's."""

    CENTER = "center"
    """The shorter edge is resized to fit, the middle is cut out."""

    SQUASH = "squash"
    """Both edges are resized to fit, whatever becomes of the aspect ratio."""

    BORDER = "border"
    """The longer edge is resized to fit, the rest is filled with the mean colour."""


class Interpolation(StrEnum):
    """Resampling filter, by Pillow's name."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


_FILTERS = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to an image before the model.

    Attributes:
        image_size: height and width of the model's input, pixels.
        resize: height and width to resize to before the crop, pixels: ``floor(image_size / crop_pct)``.
        crop_mode: how other aspect ratios are fitted.
        interpolation: filter used to resize.
        antialias: True; kept for consumers with filters of their own, as Pillow's always widen with the reduction.
        mean: subtracted from each channel after scaling to [0, 1]: of grey; of red, green and blue; or of those and
            alpha.
        std: divided by afterwards.

    Raises:
        InvalidArgument: a size is not positive, mean and std have not one, three or four values each, std is not
            positive, or antialias is off.
    """

    image_size: tuple[int, int]
    resize: tuple[int, int]
    crop_mode: CropMode
    interpolation: Interpolation
    antialias: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        check_options(self)
        for name, size in (("image_size", self.image_size), ("resize", self.resize)):
            if len(size) != 2 or min(size) < 1:
                raise InvalidArgument(f"{name} {size} is no height and width in pixels", "give two positive numbers")
        same = len(self.mean) == len(self.std) and len(self.mean) in MODES
        if not same or not np.isfinite((*self.mean, *self.std)).all():
            raise InvalidArgument(f"mean {self.mean} and std {self.std} are not one, three or four numbers each")
        if min(self.std) <= 0:
            raise InvalidArgument(f"std {self.std} is not positive")
        if not self.antialias:
            raise InvalidArgument("resizing without antialiasing is not offered", "set antialias to true")

    @property
    def channels(self) -> int:
        """Channels of the model's input: 1 of grey images, 3 of RGB, 4 of RGBA."""
        return len(self.mean)


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Image files, and their classes where the folder names them.

    Attributes:
        paths: the files, sorted.
        classes: names of the direct subfolders, sorted; None unless every image lies in one of those.
        labels: for each path the index of its class; None where ``classes`` is.
        others: suffixes of the folder's other files, and how many there are of each.
    """

    paths: tuple[Path, ...]
    classes: tuple[str, ...] | None
    labels: tuple[int, ...] | None
    others: Mapping[str, int] = field(default_factory=dict, compare=False)


def preprocess(images: Iterable[ImageLike] | ImageLike, options: Preprocessing) -> NDArray[np.float32]:
    """Turns images into a model's input.

    Args:
        images: one image, several, or a batch uint8 [B, H, W, C].
        options: the model's preprocessing.

    Returns:
        Normalised float32 [B, C, H, W] of the model's channels, B = 1 for one image.

    Raises:
        ImageError: an image cannot be read or used.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4):
        batch: list[ImageLike] = [images]
    elif isinstance(images, Iterable):
        batch = list(images)
    else:
        raise ImageError(f"a {type(images).__name__} is no image", _ARRAYS)
    height, width = options.image_size
    out = np.empty((len(batch), options.channels, height, width), dtype=np.float32)
    for image, place in zip(batch, out, strict=True):
        _normalise(seen(image, options), place, options)
    return out


def open_image(image: ImageLike, channels: int = 3) -> Image.Image:
    """Decodes an image to RGB, grey or RGBA by Pillow's ``convert``, as torchvision's and timm's datasets do.

    So an EXIF orientation is not applied, transparency is dropped rather than blended where there is no fourth channel,
    samples of more than 8 bits are clipped at 255 rather than scaled, and of several frames the first is used. A Pillow
    image of the mode wanted is itself returned. An image without transparency is not given an opaque fourth channel: a
    model of four channels reads something there.

    Args:
        image: what to decode.
        channels: 1 for grey (0.299 red + 0.587 green + 0.114 blue), 3 for RGB, 4 for RGBA.

    Raises:
        ImageError: the file is missing, damaged, of another format, larger than Pillow's limit against
            decompression bombs, or has no fourth channel where one is wanted; or the array has another dtype or shape.
    """
    if isinstance(image, np.ndarray):
        return _decoded(_from_array(image), f"the array of {list(image.shape)}", channels)
    if isinstance(image, Image.Image):
        return _decoded(image, f"the {image.mode} image of {image.width} x {image.height} pixels", channels)
    if not isinstance(image, (str, os.PathLike)):
        raise ImageError(f"a {type(image).__name__} is no image", _ARRAYS)
    path = os.fspath(image)
    check_file(path)
    try:
        with open_file(path) as file:
            return _decoded(file, f"image {path}", channels)
    except UnidentifiedImageError:
        raise ImageError(f"image {path} is damaged or of an unknown format", readable()) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image {path} is too large: {error}", "make it smaller first") from error
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged headers
        raise ImageError(f"image {path} cannot be read: {error}", readable()) from error


def cropped(image: Image.Image, options: Preprocessing) -> Image.Image:
    """Resizes and crops an image to what the model sees: of its channels, ``options.image_size`` pixels.

    As Pillow resizes RGBA, colours count by their alpha; so they do in timm's transform.

    Raises:
        ImageError: the image cannot be decoded, or is so elongated that resizing it would exceed Pillow's limit on
            pixels.
    """
    image = open_image(image, options.channels)
    height, width = _resized_size(image.height, image.width, options)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise ImageError(
            f"an image of {image.width} x {image.height} pixels would be resized to {width} x {height}",
            "crop it to a less elongated shape first",
        )
    # Whole, then cropped: Pillow's own crop while resizing keeps its box in float32 and rounds other pixels.
    resized = image.resize((width, height), _FILTERS[options.interpolation])
    if (height, width) == options.image_size:
        return resized
    border = options.crop_mode is CropMode.BORDER
    fill = tuple(round(255 * value) if border else 0 for value in options.mean)
    canvas = Image.new(image.mode, (options.image_size[1], options.image_size[0]), fill)
    canvas.paste(resized, (_offset(width, canvas.width), _offset(height, canvas.height)))
    return canvas


def seen(image: ImageLike, options: Preprocessing) -> NDArray[np.uint8]:
    """Returns the pixels of an image that the model sees, uint8 [H, W, C].

    Raises:
        ImageError: the image cannot be decoded, has no fourth channel where the model reads one, or is too elongated.
    """
    pixels = np.asarray(cropped(open_image(image, options.channels), options))
    return pixels.reshape(*pixels.shape[:2], options.channels)


def shown(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns pixels uint8 [H, W, C] as a picture [H, W, 3]: grey in all three, or without the fourth channel."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def normalised(pixels: NDArray[np.uint8], options: Preprocessing) -> NDArray[np.float32]:
    """Scales pixels uint8 [B, H, W, C] to [0, 1], subtracts the mean and divides by std: float32 [B, C, H, W].

    Raises:
        ImageError: the pixels have another dtype or shape.
    """
    channels = options.channels
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != channels:
        wanted = f"a batch is uint8 [B, H, W, {channels}]"
        raise ImageError(f"pixels {pixels.dtype} {list(pixels.shape)} are no batch", wanted)
    batch, height, width, _ = pixels.shape
    out = np.empty((batch, channels, height, width), dtype=np.float32)
    for image, place in zip(pixels, out, strict=True):
        _normalise(image, place, options)
    return out


def list_images(path: str | os.PathLike[str]) -> ImageSet:
    """Finds the images under a path.

    A file is taken as it is. A folder is walked recursively, links included: files of the suffixes that
    ``formats.suffixes`` gives count, hidden files and folders do not. Where all of them lie in direct subfolders, those
    are the classes, an empty one too, so that labels stay the indices of the full list of classes.

    Raises:
        ImageError: nothing is there, the folder cannot be listed, or it holds no image.
    """
    root = Path(path)
    if root.is_file():
        return ImageSet((root,), None, None)
    if not root.is_dir():
        raise ImageError(f"there is no image or folder {root}", "check the path")
    try:
        known, files = suffixes(), sorted(files_under(root))
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ImageError(f"folder {error.filename} cannot be listed: {error.strerror}") from error
    paths = tuple(file for file in files if file.suffix.lower() in known)
    others = Counter(file.suffix.lower() for file in files if file.suffix.lower() not in known)
    if not paths:
        held = f" and found {counts_of(others)}" if others else ""
        raise ImageError(f"folder {root} holds no image", f"looked for {', '.join(sorted(known))}{held}")
    if any(len(path.parts) != len(root.parts) + 2 for path in paths):
        return ImageSet(paths, None, None, others)
    index = {name: label for label, name in enumerate(folders)}
    return ImageSet(paths, tuple(folders), tuple(index[path.parent.name] for path in paths), others)


def counts_of(others: Mapping[str, int]) -> str:
    """Returns how many files there are of each suffix, in words."""
    return ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in sorted(others.items()))


def _decoded(image: Image.Image, name: str, channels: int) -> Image.Image:
    mode = MODES[channels]
    try:
        image.load()
        if 0 in image.size:
            raise ValueError("it has no pixels")
        if image.mode == mode:
            return image
        if mode != "RGBA" and image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
            image = image.copy()
            del image.info["transparency"]  # Pillow would warn that it is dropped
        transparent = image.has_transparency_data
        if mode != "RGBA" or transparent:
            return image.convert(mode)
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise ImageError(f"{name} cannot be decoded: {error}", "the data may be damaged or cut short") from error
    raise ImageError(
        f"{name} has no fourth channel ({image.mode}), and the model reads four",
        "give images with an alpha channel, such as RGBA in a PNG file",
    )


def _from_array(pixels: NDArray[np.uint8]) -> Image.Image:
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    colour = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or colour) or 0 in pixels.shape:
        raise ImageError(f"an array {pixels.dtype} {list(pixels.shape)} is no image", _ARRAYS)
    return Image.fromarray(pixels)


def _resized_size(height: int, width: int, options: Preprocessing) -> tuple[int, int]:
    """Returns height and width after resizing, before the crop."""
    target_height, target_width = options.resize
    if options.crop_mode is CropMode.SQUASH:
        return target_height, target_width
    if options.crop_mode is CropMode.CENTER and target_height == target_width:
        # A square target floors the longer edge, any other target rounds both: timm's two cases.
        short = min(height, width)
        return target_height * height // short, target_height * width // short
    ratios = height / target_height, width / target_width
    ratio = max(ratios) if options.crop_mode is CropMode.BORDER else min(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _offset(size: int, target: int) -> int:
    """Returns where an edge of ``size`` begins on a canvas of ``target``, centred; halves round to even in a crop."""
    return (target - size) // 2 if size < target else -round((size - target) / 2)


def _normalise(pixels: NDArray[np.uint8], out: NDArray[np.float32], options: Preprocessing) -> None:
    """Normalises one image uint8 [H, W, C] into float32 [C, H, W], in the order of operations of the reference."""
    np.divide(pixels.transpose(2, 0, 1), np.float32(255), out=out)
    out -= np.array(options.mean, dtype=np.float32)[:, None, None]
    out /= np.array(options.std, dtype=np.float32)[:, None, None]
