"""Small models of transformers' classes, the folders they are saved to, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.models.registry import LoadedModel, WeightsRequest
from sait_deploy.tokens import Score
from tests.tiny import randomised

TOLERANCE = 1e-4
OWN = WeightsRequest(WeightsSource.DEMO)
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
PATCHES = 16
VIT = {**SIZES, "intermediate_size": 100}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
NAMED = {"id2label": {0: "cat", 1: "dog, wet", 2: "heron"}, "label2id": {"cat": 0, "dog, wet": 1, "heron": 2}}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", {**VIT, **NAMED}),
    "vit-odd": (
        "ViTForImageClassification",
        {**VIT, **NAMED, "layer_norm_eps": 0.05, "hidden_act": "gelu_new", "qkv_bias": False},
    ),
    "vit-features": ("ViTModel", {**VIT, "hidden_act": "relu"}),
    "vit-unfilled-patches": ("ViTModel", {**VIT, "image_size": 35}),
    "vit-wide": ("ViTModel", {**VIT, "image_size": [16, 64]}),
    "deit": ("DeiTForImageClassification", {**VIT, **NAMED}),
    "deit-features": ("DeiTModel", VIT),
    "deit-distilled": ("DeiTForImageClassificationWithTeacher", {**VIT, **NAMED, "layer_norm_eps": 0.01}),
    "dinov2": ("Dinov2Model", {**SIZES, "mlp_ratio": 3}),
    "dinov2-swiglu": ("Dinov2Model", {**SIZES, "use_swiglu_ffn": True, "layer_norm_eps": 0.01, "qkv_bias": False}),
    "dinov2-classes": ("Dinov2ForImageClassification", {**SIZES, **NAMED}),
    "dinov2-registers": ("Dinov2WithRegistersModel", {**SIZES, "num_register_tokens": 3}),
    "dinov2-registers-classes": ("Dinov2WithRegistersForImageClassification", {**SIZES, **NAMED}),
    "dinov3": ("DINOv3ViTModel", {**VIT, "num_register_tokens": 4}),
    "dinov3-gated": (
        "DINOv3ViTModel",
        {**VIT, "use_gated_mlp": True, "hidden_act": "silu", "rope_theta": 50.0, "layer_norm_eps": 0.01},
    ),
    "dinov3-biases": ("DINOv3ViTModel", {**VIT, "query_bias": False, "key_bias": True, "proj_bias": False}),
    "dinov3-no-biases": (
        "DINOv3ViTModel",
        {**VIT, "query_bias": False, "value_bias": False, "mlp_bias": False, "hidden_act": "quick_gelu"},
    ),
    "clip-vision": ("CLIPVisionModel", VIT),
    "clip-vision-gelu": ("CLIPVisionModel", {**VIT, "hidden_act": "gelu", "layer_norm_eps": 0.01}),
    "clip-projection": ("CLIPVisionModelWithProjection", {**VIT, "projection_dim": 24}),
    "clip": ("CLIPModel", {"vision_config": VIT, "text_config": TEXT, "projection_dim": 24}),
    "clip-classes": ("CLIPForImageClassification", {"vision_config": VIT, "text_config": TEXT, **NAMED}),
    "siglip-vision": ("SiglipVisionModel", VIT),
    "siglip": ("SiglipModel", {"vision_config": {**VIT, "layer_norm_eps": 0.01}, "text_config": TEXT}),
    "siglip-classes": ("SiglipForImageClassification", {"vision_config": VIT, "text_config": TEXT, **NAMED}),
}

Write = Callable[..., Path]


def written(transformers: Any, name: str, folder: Path, **save: Any) -> Any:
    """transformers' model of that name with weights of its own everywhere, saved to a folder."""
    architecture, values = MODELS[name]
    kind = getattr(transformers, architecture)
    torch.manual_seed(0)
    model = randomised(kind(kind.config_class(**values)))
    model.save_pretrained(folder, **save)
    return model


@torch.no_grad()
def answer(model: Any, images: Tensor) -> Tensor:
    """What transformers' class gives: logits, else an image's embedding, else its features."""
    if hasattr(model, "get_image_features"):
        found = model.get_image_features(images)
        return found if isinstance(found, Tensor) else found.pooler_output
    found = model(images)
    for name in ("logits", "image_embeds"):
        if name in found:
            return found[name]  # type: ignore[no-any-return]
    pooled = getattr(model, "pooler", None)
    return found.last_hidden_state[:, 0] if pooled is not None else found.pooler_output  # type: ignore[no-any-return]


def images_of(loaded: LoadedModel) -> Tensor:
    return torch.randn(3, 3, *loaded.info.image_size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def answers(loaded: LoadedModel, images: Tensor) -> dict[str, Tensor]:
    """What our forms give where nothing is dropped."""
    limits = torch.tensor([[1, PATCHES]] * len(images), dtype=torch.int32)
    adaptive = PrunableViT(loaded.vit, AdaptivePruning(Score.MEAN, 0))
    return {
        "dense": PrunableViT(loaded.vit, None)(images)[0],
        "density": PrunableViT(loaded.vit, FixedPruning(Score.MEAN, 0, PATCHES))(images)[0],
        "adaptive": adaptive(images, torch.ones(len(images)), limits)[0],
        "timm": loaded.vit(images),
    }


def change(folder: Path, **values: Any) -> None:
    """Changes values of config.json; those of None go."""
    path = folder / "config.json"
    data = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))
