"""How images are prepared for weights: as the user or files beside them say, else as assumed; and which it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import Interpolation, Preprocessing
from sait_deploy.images.preprocessing_files import NOTHING_FOUND, FoundPreprocessing, checked_channels, checked_crop
from sait_deploy.system.option_values import chosen

FROM_NAME: Final = "assumed from the model's name"
FROM_TYPE: Final = "assumed from the model's type"
FROM_MODEL: Final = "assumed from the model's pretrained_cfg"
GIVEN: Final = "given"

_CHANNELWISE: Final = ("mean", "std")
"""What has a value for each channel."""


@dataclass(frozen=True, slots=True)
class PreprocessingChoice:
    """What a user says of preprocessing; None leaves a value to what is known of the weights.

    Attributes:
        mean: subtracted from each channel in [0, 1]; one number stands for all of them.
        std: divided by afterwards, likewise.
        crop_pct: the part of the resized image's side that the crop keeps, in (0, 1].
        interpolation: filter used to resize, or its name.

    Raises:
        InvalidArgument: mean or std is not one, three or four numbers in [0, 1], std is 0, the crop is not in
            (0, 1], or there is no such filter.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, checked_channels(name, value))
        if self.crop_pct is not None:
            checked_crop(self.crop_pct)
        if self.interpolation is not None:
            object.__setattr__(self, "interpolation", chosen(Interpolation, self.interpolation, "interpolation"))


NO_CHOICE: Final = PreprocessingChoice()


def parse_channels(name: str, text: str) -> tuple[float, ...]:
    """Reads a mean or std from text: "0.5", or "0.485,0.456,0.406".

    Raises:
        InvalidArgument: it is not one, three or four numbers in [0, 1].
    """
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise InvalidArgument(
            f"{name} {text!r} is not one, three or four numbers", "give one such as 0.5, or 0.485,0.456,0.406"
        ) from None
    return checked_channels(name, values)


def merged(
    base: Preprocessing,
    assumed: str,
    given: PreprocessingChoice = NO_CHOICE,
    found: FoundPreprocessing = NOTHING_FOUND,
    *,
    size_given: bool = False,
) -> tuple[Preprocessing, dict[str, str]]:
    """Returns what to do with images, and for each field of it where its value came from, in words.

    Args:
        base: what holds where nothing else is known, at the model's image size.
        assumed: where ``base`` came from, in words.
        given: what the user says, which comes first.
        found: what files beside the weights say.
        size_given: whether the user chose the image size.

    Raises:
        InvalidArgument: the files name an image size that the model does not have, or a mean or std is of another
            number of channels.
    """
    height, width = base.image_size
    if found.image_size is not None and not size_given and found.image_size != base.image_size:
        named = " x ".join(map(str, found.image_size))
        raise InvalidArgument(
            f"images are {named} pixels by {found.file_of('image_size')}, and {height} x {width} by the model",
            "give --imgsz to choose one",
        )
    changes: dict[str, object] = {}
    sources = dict.fromkeys((field.name for field in dataclasses.fields(Preprocessing)), assumed)
    del sources["antialias"]
    if assumed and base.channels != 3:
        sources |= dict.fromkeys(("mean", "std"), f"{assumed} for {channels_words(base.channels)}")
    if found.image_size is not None:
        sources["image_size"] = found.source_of("image_size")
    if size_given:
        sources["image_size"] = GIVEN
    for name in ("mean", "std", "interpolation", "crop_mode"):
        own, other = getattr(given, name, None), getattr(found, name)
        if own is not None or other is not None:
            sources[name] = found.source_of(name) if own is None else GIVEN
            value = other if own is None else own
            changes[name] = _of_channels(name, value, base.channels, sources[name]) if name in _CHANNELWISE else value
    shares = found.shares if given.crop_pct is None else (given.crop_pct, given.crop_pct)
    if shares is not None:
        changes["resize"] = (math.floor(height / shares[0]), math.floor(width / shares[1]))
        sources["resize"] = found.source_of("shares") if given.crop_pct is None else GIVEN
    return dataclasses.replace(base, **changes), sources  # type: ignore[arg-type]


def channels_words(channels: int) -> str:
    """Returns so many channels in words."""
    return "1 channel" if channels == 1 else f"{channels} channels"


def for_channels(values: Iterable[float], channels: int) -> tuple[float, ...]:
    """Returns a mean or std for images of another number of channels: their mean stands where there is no value."""
    own = tuple(float(value) for value in values)
    average = sum(own) / len(own)
    return own if len(own) == channels else (average,) if channels == 1 else (own + (average,) * channels)[:channels]


def _of_channels(name: str, values: tuple[float, ...], channels: int, source: str) -> tuple[float, ...]:
    """Returns a mean or std with a value for each channel; one number stands for all of them."""
    if len(values) == 1:
        return values * channels
    if len(values) != channels:
        raise InvalidArgument(
            f"the {name} that is {source} has {len(values)} numbers, and the model's images have "
            f"{channels_words(channels)}",
            f"give --{name} with one number, or {channels}",
        )
    return values


def is_assumed(sources: Mapping[str, str]) -> bool:
    """Returns whether nothing but the image size was found or given."""
    return not {source for name, source in sources.items() if name != "image_size"} - {FROM_NAME, FROM_TYPE, FROM_MODEL}


def preprocessing_words(preprocessing: Preprocessing, sources: Mapping[str, str]) -> str:
    """Returns what is done to images in words, each part with where it came from; without, where that is not known."""
    words = {
        "mean": f"mean {_numbers(preprocessing.mean)}",
        "std": f"std {_numbers(preprocessing.std)}",
        "resize": f"resized to {_size(preprocessing.resize)}",
        "interpolation": preprocessing.interpolation,
        "crop_mode": f"crop mode {preprocessing.crop_mode}",
        "image_size": f"input {_size(preprocessing.image_size)}",
    }
    grouped: dict[str, list[str]] = {}
    for name, text in words.items():
        grouped.setdefault(sources.get(name, ""), []).append(text)
    return "; ".join(", ".join(texts) + (f" ({source})" if source else "") for source, texts in grouped.items())


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
