"""The model table: from a name and a source of weights to a supported timm model and what is known about it."""

from __future__ import annotations

import difflib
import fnmatch
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from sait_deploy import demo
from sait_deploy.artifacts.manifest import ModelInfo, WeightsInfo, WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.preprocess import CropMode, Interpolation, Preprocessing
from sait_deploy.models.prunable_vit import check_supported, geometry_of
from sait_deploy.models.weights import (
    SparseTraining,
    load_weights,
    read_class_names,
    read_state_dict,
    read_training,
    sha256_of_weights,
)
from sait_deploy.system.loggers import errors_only

RANDOM_SEED: Final = 0

_MODULES: Final = ("vision_transformer", "deit")
"""timm modules whose models are VisionTransformer or VisionTransformerDistilled."""

_HUB: Final = ("hf-hub:", "hf_hub:")
"""How a hub name begins."""

_CHATTY: Final = ("timm", "huggingface_hub")
"""Loggers that tell of every retry of a download and every resampled embedding."""

_OTHER_BLOCKS: Final = ("_18x2_", "_rpn_", "_xp_", "_dlittle_", "_dpwee_", "_dwee_", "_pwee_")
"""Parts of names of models in those modules whose blocks compute something else."""


@dataclass(frozen=True, slots=True)
class WeightsRequest:
    """Where weights shall come from; ``path`` goes with ``FILE`` alone."""

    source: WeightsSource
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A supported model with its weights, in inference mode, and what is known about it.

    ``default_image_size`` is the one the model has where none is named; ``training`` is how the weights were trained
    sparse, where they were.
    """

    vit: VisionTransformer
    info: ModelInfo
    weights: WeightsInfo
    preprocessing: Preprocessing
    default_image_size: tuple[int, int]
    training: SparseTraining | None = None


def supported_names(pattern: str = "") -> list[str]:
    """Returns the names that ``load_model`` takes, the demonstration model first.

    Args:
        pattern: part of the name, or a wildcard such as ``deit*``; empty for all.
    """
    wildcard = pattern if "*" in pattern else f"*{pattern}*"
    names = [name for module in _MODULES for name in timm.list_models(wildcard, module=module)]
    demonstration = [demo.NAME] if fnmatch.fnmatch(demo.NAME, wildcard) else []
    return demonstration + sorted(n for n in names if not any(part in f"{n}_" for part in _OTHER_BLOCKS))


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What the table knows of a model without making it; ``pretrained`` counts timm's sets of weights for it."""

    image_size: int
    pretrained: int


def model_entry(name: str) -> ModelEntry:
    """Returns the table's entry of a supported name."""
    if name == demo.NAME:
        return ModelEntry(int(demo.ARCHITECTURE["img_size"]), 1)
    config = timm.get_pretrained_cfg(name)
    size = config.input_size[1] if config is not None else 0
    return ModelEntry(int(size), sum(1 for tag in timm.list_pretrained(f"{name}.*")))


def load_model(name: str, weights: WeightsRequest, image_size: int | None = None) -> LoadedModel:
    """Creates a timm model with the weights asked for.

    Args:
        name: a timm name, a hub name (``hf-hub:owner/model``, with pretrained weights), or the demonstration model's.
        weights: where the weights come from.
        image_size: side of the square input in pixels; None for the model's own.

    Raises:
        ModelError: unknown or unsupported model; weights that cannot be had or do not fit.
        InvalidArgument: an image size that is no multiple of the patch size.
    """
    if name == demo.NAME:
        return _load_demo(weights, image_size)
    _check_known(name)
    if weights.source is WeightsSource.DEMO:
        raise InvalidArgument(
            f"no weights were named for {name}", "give --weights FILE, --pretrained, or --random-weights"
        )
    if weights.source is WeightsSource.FILE:
        assert weights.path is not None
        vit, path = _from_file(name, weights.path, image_size), weights.path
        return describe(vit, name, weights.source, str(path), read_training(path), read_class_names(path))
    if weights.source is WeightsSource.PRETRAINED:
        vit = _create(name, image_size, pretrained=True)
        origin = str(getattr(vit, "pretrained_cfg", {}).get("hf_hub_id") or name)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            vit = _create(name, image_size)
        origin = f"seed {RANDOM_SEED}"
    return describe(vit, name, weights.source, origin)


def describe(
    model: nn.Module,
    name: str,
    source: WeightsSource,
    origin: str | None,
    training: SparseTraining | None = None,
    class_names: tuple[str, ...] | None = None,
) -> LoadedModel:
    """Describes a model that exists in memory.

    Args:
        model: a supported one.
        name: what it is called.
        source: where its weights came from.
        origin: the file or hub name.
        training: how they were trained sparse, where they were.
        class_names: of its classes, where the weights bring them; None for what is known of the source.

    Raises:
        ModelError: it is not supported, or has another number of classes than there are names.
    """
    vit = check_supported(model).eval()
    if class_names is not None and len(class_names) != vit.num_classes:
        wrong = f"weights {origin} name {len(class_names)} classes, and have {vit.num_classes}"
        raise ModelError(wrong, "save them again without metadata")
    patch, size = vit.patch_embed.patch_size, vit.patch_embed.img_size
    info = ModelInfo(
        name=name,
        timm_class=type(vit).__name__,
        parameters=sum(p.numel() for p in vit.parameters()),
        image_size=(int(size[0]), int(size[1])),
        patch_size=(int(patch[0]), int(patch[1])),
        classes=vit.num_classes,
        labels=class_names or _labels(vit, source),
        geometry=geometry_of(vit),
    )
    weights = WeightsInfo(source, origin, sha256_of_weights(vit), trained_sparse=training is not None)
    return LoadedModel(vit, info, weights, _preprocessing(vit), _default_image_size(vit), training)


def _load_demo(weights: WeightsRequest, image_size: int | None) -> LoadedModel:
    if image_size not in (None, demo.ARCHITECTURE["img_size"]):
        raise InvalidArgument(f"the demonstration model has no image size {image_size}", "leave --imgsz out")
    source, path = weights.source, weights.path
    if source is WeightsSource.PRETRAINED:
        raise InvalidArgument("the demonstration model ships its weights", "leave --pretrained out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        vit = VisionTransformer(**demo.ARCHITECTURE)
    vit.pretrained_cfg = {"mean": demo.MEAN, "std": demo.STD, "crop_pct": 1.0, "interpolation": "bilinear"}
    if source is WeightsSource.RANDOM:
        return describe(vit, demo.NAME, source, f"seed {RANDOM_SEED}")
    chosen = demo.WEIGHTS if path is None else path
    load_weights(vit, read_state_dict(chosen), chosen.name)
    return describe(vit, demo.NAME, source, str(path or chosen.name), read_training(chosen), read_class_names(chosen))


def _check_known(name: str) -> None:
    if not name.startswith(_HUB) and not timm.is_model(name.split(".", maxsplit=1)[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}? All: sait-deploy models" if close else "list them: sait-deploy models"
        raise ModelError(f"unknown model {name!r}", hint)


def _create(
    name: str, image_size: int | None, *, pretrained: bool = False, classes: int | None = None
) -> VisionTransformer:
    hub = name.startswith(_HUB)
    if hub and not pretrained:
        raise ModelError(f"{name} is a hub name", "hub models come with their weights: give --pretrained")
    if not pretrained:
        # Refused by class before weights of some hundred megabytes are drawn or the image size is understood.
        with torch.device("meta"):
            check_supported(timm.create_model(name))
    asked = {"img_size": image_size, "num_classes": classes}
    options: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    try:
        with errors_only(*_CHATTY):
            model = timm.create_model(name, pretrained=pretrained, **options)
    except AssertionError as error:
        raise InvalidArgument(f"{name} cannot be made at image size {image_size} ({error})") from None
    except Exception as error:  # timm and its hub client raise whatever the network or a registry entry gives
        if not pretrained:
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise ModelError(
            f"pretrained weights of {name} cannot be had: {first}",
            "check the network and the name, or download the file elsewhere and give --weights FILE",
        ) from None
    vit = check_supported(model)
    patch = int(vit.patch_embed.patch_size[0])
    if image_size is not None and image_size % patch:
        raise InvalidArgument(
            f"image size {image_size} is no multiple of the patch size {patch}",
            f"try {image_size // patch * patch or patch}",
        )
    return vit


def _from_file(name: str, path: Path, image_size: int | None) -> VisionTransformer:
    tensors = read_state_dict(path)
    with torch.device("meta"):
        outline = _create(name, image_size)
    with errors_only(*_CHATTY):
        converted = _converted(tensors, outline, path, image_size)
    head = converted.get("head.weight")
    vit = _create(name, image_size, classes=0 if head is None or head.ndim != 2 else int(head.shape[0]))
    load_weights(vit, converted, path.name)
    return vit


def _converted(
    tensors: dict[str, Tensor], outline: VisionTransformer, path: Path, image_size: int | None
) -> dict[str, Tensor]:
    """Brings a checkpoint's names and layouts to timm's, resampling position embeddings only when a size was named.

    timm would resample a patch embedding of another size too: that is another model, and is left for the check of
    shapes to name.
    """
    patches = tensors.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4 and patches.shape != outline.patch_embed.proj.weight.shape:
        return tensors
    try:
        converted: dict[str, Tensor] = checkpoint_filter_fn(tensors, outline, adapt_layer_scale=True)
    except Exception:  # layouts that no checkpoint of this family has: what does not fit is named from the file itself
        return tensors
    stored, own = tensors.get("pos_embed"), outline.pos_embed
    if image_size is not None or stored is None or own is None or stored.ndim != own.ndim:
        return converted
    if stored.shape[1] != own.shape[1] and stored.shape[2] == own.shape[2]:
        grid = math.isqrt(max(0, int(stored.shape[1]) - outline.num_prefix_tokens))
        raise ModelError(
            f"weights {path.name} do not fit: pos_embed is {list(stored.shape)}, the model's {list(own.shape)}",
            f"they may be for another image size: try --imgsz {grid * int(outline.patch_embed.patch_size[0])}",
        )
    return converted


def _default_image_size(vit: VisionTransformer) -> tuple[int, int]:
    config = getattr(vit, "pretrained_cfg", None) or {}
    size = config.get("input_size") or (3, *vit.patch_embed.img_size)
    return int(size[1]), int(size[2])


def _labels(vit: VisionTransformer, source: WeightsSource) -> tuple[str, ...] | None:
    if source is WeightsSource.DEMO:
        return demo.LABELS
    subset = infer_imagenet_subset(vit) if source is WeightsSource.PRETRAINED else None
    if subset is None:
        return None
    return tuple(map(ImageNetInfo(subset).index_to_description, range(vit.num_classes)))


def _preprocessing(vit: VisionTransformer) -> Preprocessing:
    config = resolve_model_data_config(vit)
    size = (int(vit.patch_embed.img_size[0]), int(vit.patch_embed.img_size[1]))
    share = float(config["crop_pct"])
    return Preprocessing(
        image_size=size,
        resize=(math.floor(size[0] / share), math.floor(size[1] / share)),
        crop_mode=CropMode(config["crop_mode"]),
        interpolation=Interpolation(config["interpolation"]),
        antialias=True,
        mean=tuple(float(v) for v in config["mean"]),
        std=tuple(float(v) for v in config["std"]),
    )
