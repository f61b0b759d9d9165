"""A model that a folder's or repository's config.json describes: of Hugging Face's classes, or of timm's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from sait_deploy.artifacts.manifest import Head, Pooling, WeightsSource
from sait_deploy.artifacts.tower_info import TowerChoice
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.config_files import ConfigFile, read_config_files
from sait_deploy.images.preprocessing_files import (
    NOTHING_FOUND,
    FoundPreprocessing,
    check_architecture,
    read_preprocessing,
)
from sait_deploy.models.creation import HUB, check_parameters
from sait_deploy.models.hugging_face import Readout
from sait_deploy.models.hugging_face_config import is_hugging_face, read_config
from sait_deploy.models.hugging_face_weights import folder_weights, model_of_config
from sait_deploy.models.places import Place

_TIMM_ARGUMENTS: Final = frozenset(
    ("img_size", "num_classes", "global_pool", "in_chans", "dynamic_img_size", "drop_rate", "drop_path_rate")
)
"""Arguments of a model that timm's config.json may have: the others may change answers and no shape."""


_HEADS: Final = {
    Readout.FEATURES: Head.NONE,
    Readout.CLASSES: Head.CLASSIFIER,
    Readout.PROJECTION: Head.PROJECTION,
    Readout.TOKENS: Head.NONE,
}


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A model of a Hugging Face folder.

    Attributes:
        vit: with its weights.
        file: that they were read from.
        notes: what was assumed or left out, a sentence each.
        files: configurations that may name its classes.
        found: what files say of preprocessing.
        head: what its class says that the head is.
        tower: what a language model takes of it; None of a model that answers otherwise.
    """

    vit: nn.Module
    file: Path
    notes: tuple[str, ...]
    files: tuple[ConfigFile, ...]
    found: FoundPreprocessing
    head: Head
    tower: TowerChoice | None


def check_source(name: str, source: WeightsSource, global_pool: Pooling | None) -> None:
    """Refuses weights and a pooling that a place does not take: it has its own.

    Raises:
        InvalidArgument: random weights, or a pooling.
        ModelError: a hub name beside a file of weights.
    """
    if source is WeightsSource.RANDOM:
        raise ModelError(
            f"{name} is a folder or hub name, which brings its weights",
            "give --pretrained or leave --random-weights out; a timm name takes random weights",
        )
    if source is WeightsSource.FILE and name.startswith(HUB):
        raise ModelError(
            f"{name} is a hub name",
            "hub models come with their weights: give --pretrained, or download it and give the folder to --model",
        )
    if global_pool is not None:
        raise InvalidArgument(f"{name} has a config.json that says its pooling", "leave --global-pool out")


def timm_request(place: Place, name: str) -> tuple[str, Pooling | None]:
    """Returns the name that timm's config.json of a place gives its model, and what its head reads.

    Args:
        place: whose configuration is not Hugging Face's.
        name: by which the user named the place.

    Raises:
        ModelError: the configuration is not timm's either, or has arguments that no name of timm's says.
    """
    file = place.configuration()
    architecture, arguments = file.data.get("architecture"), file.data.get("model_args")
    if not isinstance(architecture, str):
        raise ModelError(
            f"{file.path} says neither model_type, as Hugging Face's do, nor architecture, as timm's do",
            "give the folder of a model, or a timm name and --weights FILE",
        )
    if place.source is WeightsSource.PRETRAINED:
        return (name if name.startswith(HUB) else f"{HUB[0]}{name}"), None
    further = sorted(set(arguments) - _TIMM_ARGUMENTS) if isinstance(arguments, dict) else []
    if further:
        raise ModelError(
            f"{file.path} makes {architecture} with {further[0]} {_shown(arguments, further[0])}, which no name says",
            "make the model in Python and give it to sait_deploy.export",
        )
    pool = file.data.get("global_pool")
    return architecture, Pooling(pool) if pool in list(Pooling) else None


def _shown(arguments: Mapping[str, Any] | None, name: str) -> str:
    return repr((arguments or {})[name])


def hugging_face_model(
    place: Place,
    weights: Path | None,
    image_size: tuple[int, int] | None,
    in_chans: int | None,
    most_parameters: int | None,
    *,
    prepared: bool,
) -> PlacedModel:
    """Makes the model of a Hugging Face folder with its weights.

    The image size is the one given, else that of the folder's preprocessing where transformers runs the model at any,
    else the configuration's.

    Args:
        place: the folder.
        weights: a file of weights in place of the folder's own; None for those.
        image_size: height and width of the input in pixels; None for the model's own.
        in_chans: channels of the images; None for the model's own.
        most_parameters: that the model may have; None for any number.
        prepared: whether preprocessing is known, and files that say it are not read.

    Raises:
        ModelError: the model is not served, has more parameters, or the weights are not its own.
        InvalidArgument: a configuration cannot be read or contradicts another.
    """
    config = read_config(place.configuration())
    if in_chans is not None:
        config = config.with_channels(in_chans)
    own = weights is None or weights == place.folder
    file = folder_weights(place.folder) if weights is None or own else folder_weights(weights)
    beside = () if own else read_config_files(file)
    files = (*beside, *read_config_files(place.folder))
    found = NOTHING_FOUND
    if not prepared:
        said = [one for one in beside if not is_hugging_face(one)] or [one for one in files if not is_hugging_face(one)]
        found = read_preprocessing(said)
        check_architecture(found, place.name)
    with torch.device("meta"):
        check_parameters(place.name, config.make(config.image_size, 1), most_parameters)
    usual = found.image_size if config.kind.any_size and found.image_size is not None else config.image_size
    size = image_size or usual
    vit, notes = model_of_config(config, file, size, folder_says=own)
    vit.pretrained_cfg = {**config.kind.preprocessing, "input_size": (config.channels, *usual)}  # type: ignore[assignment]
    return PlacedModel(vit, file, notes, files, found, _HEADS[config.model.readout], config.tower)
