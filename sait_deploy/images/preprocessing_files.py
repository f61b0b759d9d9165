"""What files beside weights say of preprocessing: ``config.json`` of timm, ``preprocessor_config.json`` of others."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.config_files import CONFIG_HINT, ConfigFile
from sait_deploy.images.preprocess import MODES, CropMode, Interpolation, Preprocessing

_ROUNDED: Final = 4e-3
"""Within which two numbers are one: a crop of 0.9 resizes for 224 pixels to 248, of which they are 0.903."""

_PILLOW: Final = {
    0: Interpolation.NEAREST,
    1: Interpolation.LANCZOS,
    2: Interpolation.BILINEAR,
    3: Interpolation.BICUBIC,
}
_HUGGING_FACE: Final = ("image_mean", "image_std", "do_resize", "do_normalize", "crop_size", "resample")
_SWITCHES: Final = ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_pad")
_SQUARE: Final = ("ViT", "DeiT", "Beit", "Siglip")
"""Parts of names of Hugging Face's processors that take one number for height and width."""


@dataclass(frozen=True, slots=True)
class FoundPreprocessing:
    """What files say; None of what they do not.

    Attributes:
        mean: of each channel in [0, 1]; one number stands for all of them.
        std: likewise.
        interpolation: filter used to resize.
        crop_mode: how other aspect ratios are fitted.
        shares: the parts of the resized height and width that the crop keeps.
        image_size: height and width of the input, pixels.
        files: for each of these that is known, the file that says it.
        architecture: timm's name of the model that the files are of.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    crop_mode: CropMode | None = None
    shares: tuple[float | Fraction, float | Fraction] | None = None
    image_size: tuple[int, int] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    architecture: str | None = None

    def file_of(self, name: str) -> Path:
        """Returns the file that says a value."""
        return self.files[name]

    def source_of(self, name: str) -> str:
        """Returns where a value came from, in words."""
        return f"read from {self.file_of(name).name}"


NOTHING_FOUND: Final = FoundPreprocessing()


def checked_channels(name: str, value: Any) -> tuple[float, ...]:
    """Returns a mean or std: one number, which stands for all channels, or one of each channel.

    Raises:
        InvalidArgument: it is not one, three or four numbers in [0, 1], or a std is 0.
    """
    values: list[Any] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(values) not in MODES or not all(_is_number(one) for one in values):
        raise InvalidArgument(
            f"{name} {value!r} is not one, three or four numbers", "such as 0.5, or 0.485, 0.456, 0.406"
        )
    if not all(0 <= one <= 1 for one in values) or (name == "std" and min(values) == 0):
        raise InvalidArgument(
            f"{name} {values} is not of pixels scaled to [0, 1]", "divide numbers of 0 to 255 by 255; std is above 0"
        )
    return tuple(float(one) for one in values)


def checked_crop(value: Any) -> float:
    """Returns the part of the resized image's side that the crop keeps.

    Raises:
        InvalidArgument: it is not in (0, 1].
    """
    if not _is_number(value) or not 0 < value <= 1:
        raise InvalidArgument(f"crop_pct {value!r} is not in (0, 1]", "give one such as 0.9")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_preprocessing(beside: Iterable[ConfigFile]) -> FoundPreprocessing:
    """Returns what the files beside weights say.

    Raises:
        InvalidArgument: a file asks for what is not offered, or two of them contradict each other.
    """
    known: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for file in beside:
        path = file.path
        for name, value in _values(file):
            if not _agree(known.get(name, value), value):
                raise InvalidArgument(
                    f"{path} says {name} {_shown(value)}, and {files[name].name} beside it {_shown(known[name])}",
                    "correct one of them, or move it away",
                )
            known.setdefault(name, value)
            files.setdefault(name, path)
    return FoundPreprocessing(**known, files=files)


def check_architecture(found: FoundPreprocessing, name: str) -> None:
    """Checks that files beside weights are of the model that was named.

    Raises:
        InvalidArgument: they are of another.
    """
    if found.architecture is None:
        return
    own = name.partition(".")[0]
    if found.architecture.partition(".")[0] != own:
        raise InvalidArgument(
            f"{found.file_of('architecture')} is of {found.architecture}, not of {own}",
            f"give --model {found.architecture}, or move the file away if it is not of these weights",
        )


def timm_config(architecture: str, preprocessing: Preprocessing) -> str:
    """Returns a ``config.json`` from which ``read_preprocessing`` reads this preprocessing again."""
    height, resized = preprocessing.image_size[0], preprocessing.resize[0]
    share = height / resized
    # A share that is rounded may come out a pixel short: half a pixel more is floored to the same.
    exact = math.floor(height / share) == resized
    config = {
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "crop_pct": share if exact else height / (resized + 0.5),
        "crop_mode": preprocessing.crop_mode,
        "interpolation": preprocessing.interpolation,
        "input_size": (preprocessing.channels, *preprocessing.image_size),
    }
    return json.dumps({"architecture": architecture, "pretrained_cfg": config}, indent=2) + "\n"


def _agree(one: object, other: object) -> bool:
    """Returns whether two files say the same; numbers are rounded in some."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        # One number stands for all channels.
        pairs = list(zip(itertools.cycle(one), other) if len(one) == 1 else zip(one, itertools.cycle(other)))
        fits = len(one) == len(other) or 1 in (len(one), len(other))
        return fits and all(math.isclose(a, b, rel_tol=_ROUNDED, abs_tol=_ROUNDED) for a, b in pairs)
    return one == other


def _shown(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _values(file: ConfigFile) -> Iterator[tuple[str, Any]]:
    """Yields what a file says, by the names of ``FoundPreprocessing``."""
    data = file.data
    try:
        if isinstance(data.get("architecture"), str):
            yield "architecture", data["architecture"]
        made = _made_size(data)
        if made is not None:
            yield "image_size", made
        if isinstance(data.get("pretrained_cfg"), dict):
            # The size that the model was made at holds; timm may leave the one that it was first trained at beside it.
            values = _of_timm(data["pretrained_cfg"])
            yield from (one for one in values if made is None or one[0] != "image_size")
        elif any(name in data for name in _HUGGING_FACE):
            yield from _of_hugging_face(data)
        elif "mean" in data and "std" in data:
            yield from _of_timm(data)
    except InvalidArgument as error:
        raise InvalidArgument(f"{file.path}: {error.message}", CONFIG_HINT) from None


def _made_size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns the image size that timm's or Hugging Face's model was made at, where its ``config.json`` says it."""
    arguments = data.get("model_args")
    size = arguments.get("img_size") if isinstance(arguments, dict) else None
    if size is None and "hidden_size" in data:
        size = data.get("image_size")
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else size
    if not (isinstance(sides, list) and len(sides) == 2):
        raise InvalidArgument(f"image size {size!r} is no height and width in pixels")
    return _pair("image size", {"height": sides[0], "width": sides[1]})


def _of_timm(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("mean", "std"):
        if config.get(name) is not None:
            yield name, checked_channels(name, config[name])
    if config.get("crop_pct") is not None:
        yield "shares", (checked_crop(config["crop_pct"]),) * 2
    for name, kind in (("interpolation", Interpolation), ("crop_mode", CropMode)):
        if config.get(name) is not None:
            if config[name] not in list(kind):
                raise InvalidArgument(f"{name} {config[name]!r} is not offered")
            yield name, kind(config[name])
    size = config.get("input_size")
    if size is not None:
        if not (isinstance(size, list) and len(size) == 3 and size[0] in MODES):
            raise InvalidArgument(f"input_size {size!r} is not 1, 3 or 4 channels, height and width")
        yield "image_size", _pair("input_size", {"height": size[1], "width": size[2]})


def _check_offered(config: Mapping[str, Any]) -> None:
    """Refuses what Hugging Face's processors do to images and this one does not."""
    for name in _SWITCHES:
        if not isinstance(config.get(name, True), bool | None):
            raise InvalidArgument(f"{name} {config[name]!r} is neither true nor false")
    if config.get("do_flip_channel_order"):
        raise InvalidArgument("channels are in the order blue, green, red there, which is not offered")
    if config.get("rescale_offset"):
        raise InvalidArgument("pixels are shifted as well as scaled there, which is not offered")
    factor = config.get("rescale_factor", 1 / 255)
    if not config.get("do_rescale", True) or not (_is_number(factor) and math.isclose(factor, 1 / 255, rel_tol=1e-3)):
        raise InvalidArgument("pixels are not scaled by 1/255 there, which is not offered")
    if not config.get("do_resize", True) or config.get("do_pad"):
        raise InvalidArgument("images are padded or not resized there, which is not offered")


def _of_hugging_face(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    _check_offered(config)
    if config.get("do_normalize", True):
        for name in ("mean", "std"):
            if config.get(f"image_{name}") is not None:
                yield name, checked_channels(name, config[f"image_{name}"])
    else:
        yield "mean", (0.0,)
        yield "std", (1.0,)
    if config.get("resample") is not None:
        if config["resample"] not in _PILLOW:
            raise InvalidArgument(f"resample {config['resample']!r} is not offered")
        yield "interpolation", _PILLOW[config["resample"]]
    if config.get("size") is not None:
        yield from _sizes(config)


def _sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    size, kind = config["size"], str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    if isinstance(size, int):
        if "CLIP" in kind:
            size = {"shortest_edge": size}
        elif any(part in kind for part in _SQUARE):
            size = {"height": size, "width": size}
    if isinstance(size, list) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    resize = _pair("size", size if shortest is None else {"height": shortest, "width": shortest})
    crops = config.get("do_center_crop", "crop_size" in config)
    crop = config.get("crop_size")
    if shortest is not None and not (crops and crop is not None):
        raise InvalidArgument(f"size {size!r} without a crop leaves images of different sizes, which is not offered")
    if crops and crop is not None:
        image = _pair("crop_size", {"height": crop, "width": crop} if isinstance(crop, int) else crop)
    else:
        image = resize
    yield "crop_mode", CropMode.SQUASH if shortest is None else CropMode.CENTER
    yield "image_size", image
    yield "shares", (Fraction(image[0], resize[0]), Fraction(image[1], resize[1]))


def _pair(name: str, size: object) -> tuple[int, int]:
    sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
    if not all(type(side) is int and side > 0 for side in sides):
        raise InvalidArgument(f"{name} {size!r} is no height and width in pixels")
    return sides  # type: ignore[return-value]
