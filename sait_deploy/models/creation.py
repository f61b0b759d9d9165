"""From a name to a model without its weights: which names there are, what is known of each, and making its model."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import replace
from typing import Final

import timm
import torch
from torch import nn

from sait_deploy import demo
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.families import FAMILIES, WINDOWED, transformer_of, windowed_error
from sait_deploy.models.model_request import ModelRequest
from sait_deploy.models.timm_source import TimmTransformer
from sait_deploy.models.transformer import ModelEntry, Transformer

HUB: Final = ("hf-hub:", "hf_hub:")
"""How a hub name begins."""


def supported_names(pattern: str = "") -> list[str]:
    """Returns the names that ``load_model`` takes, the demonstration model first.

    Example::

        print(sait_deploy.supported_names("deit*"))

    Args:
        pattern: part of the name, or a wildcard such as ``deit*``; empty for all.
    """
    wildcard = pattern if "*" in pattern else f"*{pattern}*"
    demonstration = fnmatch.filter([demo.NAME], wildcard)
    return demonstration + sorted(fnmatch.filter(_names(), wildcard))


def model_entry(name: str) -> ModelEntry:
    """Returns the table's entry of a supported name."""
    if name == demo.NAME:
        return ModelEntry(int(demo.ARCHITECTURE["img_size"]), 1)
    return _family_of(name).entry(name)


def family_name(name: str) -> str:
    """Returns the name in ``FAMILIES`` of the family that a supported name is of."""
    if name == demo.NAME:
        return "timm-vit"
    return next(key for key, family in FAMILIES.items() if family.load().has(name))


def _names() -> list[str]:
    return [name for family in FAMILIES.values() for name in family.load().names()]


def _family_of(name: str) -> type[Transformer | TimmTransformer]:
    """Returns the family that has the name; for names of no family timm creates the model, to be refused by class."""
    families = (family.load() for family in FAMILIES.values())
    return next((family for family in families if family.has(name)), TimmTransformer)


def is_known(name: str) -> bool:
    """Returns whether a name is one of a model's: the demonstration's, a family's, timm's, or of timm's hub."""
    known = name == demo.NAME or name.startswith(HUB) or timm.is_model(name.split(".", maxsplit=1)[0])
    return known or any(family.load().has(name) for family in FAMILIES.values())


def check_known(name: str) -> None:
    """Refuses a name that no model has.

    Raises:
        ModelError: that is so; the message names others that are near. Or it is a model's that attends inside windows.
    """
    if timm.models.is_model_in_modules(name.split(".", maxsplit=1)[0], WINDOWED):
        raise windowed_error(name)
    if is_known(name):
        return
    close = difflib.get_close_matches(name, {*_names(), *timm.list_models()}, n=3)
    hint = f"did you mean {', '.join(close)}? All: sait-deploy models" if close else "list them: sait-deploy models"
    raise ModelError(f"unknown model {name!r}", hint)


def create_model(asked: ModelRequest, most_parameters: int | None = None) -> nn.Module:
    """Makes the model of a name.

    Args:
        asked: of a name that ``check_known`` knows.
        most_parameters: that it may have; None for any number.

    Raises:
        ModelError: it cannot be pruned, has more parameters, or its weights cannot be had.
        InvalidArgument: an image size that is no multiple of the patch size.
    """
    name = asked.name
    if name.startswith(HUB) and not asked.pretrained:
        raise ModelError(f"{name} is a hub name", "hub models come with their weights: give --pretrained")
    family = _family_of(name)
    if not asked.pretrained or most_parameters is not None:
        # Refused by class before weights of some hundred megabytes are drawn or the image size is understood.
        with torch.device("meta"):
            transformer_of(family.create(ModelRequest(name)))
    if most_parameters is not None:
        with torch.device("meta"):
            check_parameters(name, family.create(replace(asked, pretrained=False)), most_parameters)
    model = family.create(asked)
    if asked.image_size is not None:
        check_multiple(asked.image_size, transformer_of(model).shape().patch_size)
    return model


def check_parameters(name: str, outline: nn.Module, most: int | None) -> None:
    """Refuses a model, made without memory for its weights, of more parameters than there may be.

    Raises:
        ModelError: that is so.
    """
    found = sum(parameter.numel() for parameter in outline.parameters())
    if most is not None and found > most:
        raise ModelError(
            f"{name} has {found} parameters, where what was exported from it has room for {most}",
            "give the artifact that was exported from it",
        )


def check_multiple(image_size: tuple[int, int], patch: tuple[int, int]) -> None:
    """Refuses an image size, height and width in pixels, that patches do not fill.

    Raises:
        InvalidArgument: that is so; the hint is one that they fill.
    """
    for side, of_patch in zip(image_size, patch, strict=True):
        if side % of_patch:
            raise InvalidArgument(
                f"image size {side} is no multiple of the patch size {of_patch}",
                f"try {side // of_patch * of_patch or of_patch}",
            )
