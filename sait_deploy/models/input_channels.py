"""Channels of a model's images: how many its patch embedding reads, and weights made for another number."""

from __future__ import annotations

from collections.abc import Mapping

from timm.models import adapt_input_conv
from torch import Tensor

from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import MODES
from sait_deploy.images.preprocessing_choice import channels_words
from sait_deploy.models.checkpoint_names import StateDict

PATCHES = "patch_embed.proj"
"""timm's name of the convolution that makes patches, whose weight is [D, C, height, width]."""

STEM = "patch_embed.conv1"
"""LV-ViT's name of the convolution that reads the images, before the one that makes patches."""

SERVED = "grey (1), RGB (3) or RGBA (4)"


def check_channels(channels: int) -> None:
    """Refuses a number of channels that no image is read with.

    Raises:
        InvalidArgument: that is so.
    """
    if channels not in MODES:
        raise InvalidArgument(f"images have no {channels_words(channels)}", f"they are {SERVED}")


def channels_of(tensors: Mapping[str, Tensor], pixels: str = PATCHES) -> int | None:
    """Returns how many channels weights read; None where they have no convolution of the name ``pixels``."""
    weight = tensors.get(f"{pixels}.weight")
    return int(weight.shape[1]) if weight is not None and weight.ndim == 4 else None


def adapted(tensors: dict[str, Tensor], channels: int, origin: str, pixels: str = PATCHES) -> StateDict:
    """Makes the patch embedding of weights for RGB one for another number of channels, as timm does.

    For grey images timm sums over the channels; for more it repeats them, scaled by 3 over their number.

    Args:
        tensors: by the model's names.
        channels: that the model reads.
        origin: the weights' name, for the note.
        pixels: name of the convolution that reads the images.

    Returns:
        The tensors and a note that says so; weights for other than RGB images as they are.
    """
    if channels_of(tensors, pixels) != len(MODES[3]) or channels == len(MODES[3]):
        return StateDict(tensors)
    name = f"{pixels}.weight"
    patches: Tensor = adapt_input_conv(channels, tensors[name])
    how = "summed over red, green and blue" if channels == 1 else "red, green and blue repeated and scaled by 3/4"
    note = f"weights {origin}: patch embedding of 3 channels made one of {channels} as timm does: {how}"
    return StateDict({**tensors, name: patches}, (note,))
