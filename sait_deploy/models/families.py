"""The families of models that can be pruned: for each, the classes it serves and the module that computes them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Final

from torch import nn

from sait_deploy.errors import ModelError
from sait_deploy.models.transformer import Transformer
from sait_deploy.plugins.mass_token_select.spec import MAX_PATCH_TOKENS


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models.

    Attributes:
        models: its models in words, for errors.
        classes: qualified names of their classes. A subclass may compute something else: it is not served.
        module: that computes them, imported when a model of the family is met.
        transformer: name of the subclass of ``Transformer`` in that module.
    """

    models: str
    classes: tuple[str, ...]
    module: str
    transformer: str

    def load(self) -> type[Transformer]:
        """Imports the module and returns the class."""
        found: type[Transformer] = getattr(importlib.import_module(self.module), self.transformer)
        return found


FAMILIES: Final[dict[str, Family]] = {
    "timm-vit": Family(
        models="timm's VisionTransformer and VisionTransformerDistilled (ViT, DeiT, DeiT-3, DINOv2, CLIP, SigLIP)",
        classes=(
            "timm.models.vision_transformer.VisionTransformer",
            "timm.models.deit.VisionTransformerDistilled",
        ),
        module="sait_deploy.models.timm_vit",
        transformer="TimmViT",
    ),
    "timm-eva": Family(
        models="timm's Eva (DINOv3, EVA-02, EVA-CLIP, Perception Encoder, ViTs with rotary positions)",
        classes=("timm.models.eva.Eva",),
        module="sait_deploy.models.timm_eva",
        transformer="TimmEva",
    ),
    "class-and-mean": Family(
        models="DINOv2's classifiers from Hugging Face, whose head reads the class token and the mean of the patches",
        classes=("sait_deploy.models.class_and_mean.ClassAndMeanViT",),
        module="sait_deploy.models.class_and_mean",
        transformer="ClassAndMean",
    ),
    "lvvit": Family(
        models="LV-ViT by the authors' checkpoints, whose head reads the class token and the patches",
        classes=("sait_deploy.models.lvvit.LVViT",),
        module="sait_deploy.models.lvvit",
        transformer="LVViTTransformer",
    ),
}


WINDOWED: Final = (
    *("davit", "efficientvit_msra", "gcvit", "hiera", "hieradet_sam2", "nest", "swin_transformer"),
    *("swin_transformer_v2", "swin_transformer_v2_cr", "tiny_vit", "twins", "vision_transformer_sam"),
)
"""timm's modules of models that attend inside windows."""


def windowed_error(model: str) -> ModelError:
    """Returns why a model that attends inside windows cannot be pruned."""
    return ModelError(
        f"{model} cannot be pruned: its blocks attend inside windows, and dropped tokens would leave windows of unequal"
        " numbers of tokens",
        "use a model whose blocks attend to the whole image, such as DeiT, DINOv2 or DINOv3: sait-deploy models",
    )


def check_served(model: object) -> Family:
    """Returns the family that serves a model's class.

    Raises:
        ModelError: none does.
    """
    wanted = f"{type(model).__module__}.{type(model).__qualname__}"
    family = next((one for one in FAMILIES.values() if wanted in one.classes), None)
    if family is None and wanted.startswith("timm.models.") and wanted.split(".")[2] in WINDOWED:
        raise windowed_error(f"a model of class {type(model).__name__}")
    if family is None:
        supported = ", ".join(one.models for one in FAMILIES.values())
        # torch.compile and data parallelism wrap the model that is meant.
        wrapped = next((name for name in ("_orig_mod", "module") if hasattr(model, name)), None)
        hint = (
            f"supported are {supported}" if wrapped is None else f"give the model inside of it: its attribute {wrapped}"
        )
        if type(model).__module__.startswith("transformers."):
            hint = "save it with save_pretrained, and give the folder: --model FOLDER, or load_model(FOLDER, …)"
        raise ModelError(f"a model of class {type(model).__name__} cannot be pruned", hint)
    return family


def transformer_of(model: nn.Module) -> Transformer:
    """Returns how a model's family computes it.

    Raises:
        ModelError: no family serves its class, its family does not compute a part of it, it has no readout, or it has
            more patch tokens than selection ranks.
    """
    transformer = check_served(model).load()(model)
    patches = transformer.shape().patches
    if patches > MAX_PATCH_TOKENS:
        raise ModelError(
            f"{patches} patch tokens are more than the {MAX_PATCH_TOKENS} that selection ranks",
            "choose a smaller --imgsz or a larger patch",
        )
    return transformer
