"""A model from a Hugging Face folder: made by its config.json, its weights by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sait_deploy.errors import ModelError
from sait_deploy.models.checkpoint_files import weights_file
from sait_deploy.models.checkpoint_names import StateDict, left_out
from sait_deploy.models.creation import check_multiple
from sait_deploy.models.families import transformer_of
from sait_deploy.models.hugging_face import LLAVA, Readout
from sait_deploy.models.hugging_face_config import HuggingFaceConfig
from sait_deploy.models.hugging_face_names import HEADS, layouts_of, translated
from sait_deploy.models.input_channels import adapted
from sait_deploy.models.weights import check_fits, load_weights, read_state_dict

_FILES: Final = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""What weights are called in such folders, the preferred first."""

_TIMM: Final = "patch_embed.proj.weight"
_MISFIT: Final = "config.json is of another model than these weights: download both again, or correct it"


class _Converted(NamedTuple):
    """Tensors by timm's names, and what was left out, a sentence each."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def folder_weights(folder: Path) -> Path:
    """Returns the weights file of a folder, by Hugging Face's name, else its only one; a file is itself.

    Raises:
        ModelError: the folder holds no weights file, or several.
    """
    named = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    return weights_file(folder) if named is None else named


def model_of_config(
    config: HuggingFaceConfig, file: Path, image_size: tuple[int, int], *, folder_says: bool
) -> tuple[nn.Module, tuple[str, ...]]:
    """Makes the model of a configuration with the weights of a file.

    Position embeddings are resampled to another image size than the configuration's as transformers does.

    Args:
        config: of the folder.
        file: weights by Hugging Face's names or by timm's.
        image_size: height and width in pixels.
        folder_says: whether the classes that the configuration names are those of the file.

    Returns:
        The model, and what was assumed or left out, a sentence each.

    Raises:
        ModelError: the weights cannot be read, or are of another model; or labels are not as many as classes.
        InvalidArgument: an image size that is no multiple of the patch size.
    """
    with torch.device("meta"):
        outline = transformer_of(config.make(config.image_size, 1))
    read = read_state_dict(file, outline.wanted())
    converted, left = _converted(config, read.tensors, file)
    tensors, made = adapted(converted, config.channels, file.name) if config.adapted else StateDict(converted)
    outputs = _outputs(config, tensors, file, config.named_classes if folder_says else None)
    with torch.device("meta"):  # before memory is taken for a model of whatever size the configuration says
        check_fits(config.make(config.image_size, outputs), tensors, file.name, _MISFIT)
    notes = config.notes + read.notes + left + made
    if image_size != config.image_size:
        check_multiple(image_size, outline.shape().patch_size)
        grids = [transformer_of(_outline(config, size)).shape().grid for size in (config.image_size, image_size)]
        tensors, resampled = _resampled(tensors, grids[0], grids[1], config.kind.antialias)
        notes += tuple(f"weights {file.name}: {said}" for said in resampled)
    model = config.make(image_size, outputs)
    load_weights(model, tensors, file.name, _MISFIT)
    return model, notes


def _outline(config: HuggingFaceConfig, image_size: tuple[int, int]) -> nn.Module:
    with torch.device("meta"):
        return config.make(image_size, 1)


def _converted(config: HuggingFaceConfig, tensors: dict[str, Tensor], file: Path) -> _Converted:
    """Translates names, leaves out what is no part of the model, and gives registers the positions they have.

    Raises:
        ModelError: the names are of another layout than the class's, or of two.
    """
    layouts = layouts_of(tensors)
    if len(layouts) + (_TIMM in tensors) > 1:
        found = [f"{prefix}{layout.anchor}" for prefix, layout in layouts.items()] + [_TIMM] * (_TIMM in tensors)
        raise ModelError(
            f"weights {file.name} hold names of two models: {' and '.join(found[:2])}", "save those of one of them"
        )
    if not layouts:
        return _Converted(tensors, ())
    ((prefix, layout),) = layouts.items()
    if layout is not config.kind.layout:
        raise ModelError(
            f"weights {file.name} have names of {layout.models}, and {config.file.path} is of {config.architecture}",
            _MISFIT,
        )
    if config.architecture == LLAVA:  # what stands beside its tower is of its language model
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    unread = [name for name in tensors if name.startswith(_unread(config, prefix))]
    named, left = translated({n: t for n, t in tensors.items() if n not in unread}, layout, prefix)
    if named.pop("mask_token", None) is not None:
        left.append(f"{prefix}embeddings.mask_token")
    left += unread
    if "dist_token" in named and "reg_tokens" in config.model.arguments:
        named["reg_token"] = named.pop("dist_token")
    if "register_tokens" in named and {"cls_token", "pos_embed"} <= named.keys():
        # Registers come after positions are added: the class token's is added to it once.
        named["reg_token"] = named.pop("register_tokens")
        named["cls_token"] = named["cls_token"].float() + named["pos_embed"][:, :1].float()
        named["pos_embed"] = named["pos_embed"][:, 1:]
    if not named.get("reg_token", torch.empty(1)).numel():
        del named["reg_token"]
    return _Converted(named, (left_out(file.name, left),) if left else ())


def _unread(config: HuggingFaceConfig, prefix: str) -> tuple[str, ...]:
    """Returns how names begin of parts that classes of this type have and this one does not read."""
    model = config.model
    if model.readout is Readout.FEATURES:
        return tuple(f"{head}." for head in HEADS)
    if model.readout is Readout.TOKENS:
        return (*(f"{head}." for head in HEADS), f"{prefix}head.")
    if model.arguments.get("global_pool") != "avg":
        return ()
    return (f"{prefix}head.", *((f"{prefix}post_layernorm.",) if not model.arguments.get("final_norm", True) else ()))


def _outputs(config: HuggingFaceConfig, tensors: Mapping[str, Tensor], file: Path, named: int | None) -> int:
    """Returns how many outputs the head of the weights has.

    Raises:
        ModelError: there is none, or config.json names another number of classes.
    """
    if config.model.readout in (Readout.FEATURES, Readout.TOKENS):
        return 0
    head = tensors.get("head.weight")
    if head is None or head.ndim != 2:
        raise ModelError(
            f"weights {file.name} have no head, and {config.architecture} has one",
            "take all shards, or the architectures of a model without a head in config.json",
        )
    outputs = int(head.shape[0])
    if named is not None and named != outputs:
        raise ModelError(
            f"{config.file.path} names {named} classes (id2label), and the head of {file.name} has {outputs}",
            "correct id2label, or take it out and give --labels FILE",
        )
    return outputs


def _resampled(
    tensors: Mapping[str, Tensor], old: tuple[int, int], new: tuple[int, int], antialias: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the tensors with position embeddings of another grid, and a sentence that says so."""
    stored = tensors.get("pos_embed")
    prefix = 0 if stored is None else stored.shape[1] - old[0] * old[1]
    if stored is None or old == new or prefix < 0:
        return dict(tensors), ()
    patches = stored[:, prefix:].float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(patches, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    positions = torch.cat([stored[:, :prefix].float(), resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    said = f"position embeddings of {old[0]} × {old[1]} patches are resampled to {new[0]} × {new[1]}, bicubic"
    return {**tensors, "pos_embed": positions}, (f"{said} as in transformers",)
