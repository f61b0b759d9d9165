"""Hugging Face's vision transformers that are served: for each class its type, its module and its defaults.

Nothing of transformers is imported, and code that a configuration names never runs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from timm.layers import QuickGELU
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sait_deploy.models.class_and_mean import ClassAndMeanViT
from sait_deploy.models.hugging_face_names import CLIP, DINOV3, VIT, NameLayout

ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    **dict.fromkeys(("gelu", "gelu_python"), nn.GELU),
    **dict.fromkeys(
        ("gelu_pytorch_tanh", "gelu_python_tanh", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_tanh"),
        functools.partial(nn.GELU, approximate="tanh"),
    ),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
}

COMPUTED: Final = re.compile(
    r"norm|act(ivation)?(_|$)|rope|rotary|bias|glu|gate|mlp|ffn|att|pos|pool|layer|window|scale|head"
)
"""Parts of names of values that change what a model computes."""

NOT_COMPUTED: Final = frozenset(
    (
        *(
            "attention_dropout",
            "attention_probs_dropout_prob",
            "apply_layernorm",
            "pos_embed_shift",
            "pos_embed_jitter",
        ),
        *("pos_embed_rescale", "pooler_act", "pooler_output_size", "attn_implementation", "_attn_implementation"),
        *("_attn_implementation_autoset", "_attn_implementation_internal", "output_attentions", "pruned_heads"),
        *("head_dim", "output_scores", "encoder_no_repeat_ngram_size"),
    )
)
"""Names that have such parts and change no answer: of training, of parts that are not read, of programming."""


class Readout(Enum):
    """What a class gives."""

    FEATURES = auto()
    """The features, without a head."""

    CLASSES = auto()
    """Logits of classes."""

    PROJECTION = auto()
    """An embedding, by a linear layer without bias."""

    TOKENS = auto()
    """All tokens, without pooling: an image tower."""


@dataclass(frozen=True, slots=True)
class ModelType:
    """What classes of one ``model_type`` have in common.

    Attributes:
        layout: how its tensors are named.
        defaults: values that ``config.json`` may leave out; others it has none of.
        preprocessing: what its image processor does by default, in the words of timm's ``pretrained_cfg``.
        any_size: whether transformers runs it at the size of the images, its positions resampled.
        antialias: whether it resamples them with a wider filter where there are fewer.
    """

    layout: NameLayout
    defaults: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    any_size: bool = False
    antialias: bool = False


@dataclass(frozen=True, slots=True)
class ModelClass:
    """One class that is served.

    Attributes:
        kind: its ``model_type``, or that of the image tower that is read of it.
        readout: what it gives.
        module: timm's class that computes it, or one of ours.
        arguments: of that class, beside those of the configuration.
        says: what its answer is read from where nothing else shows it; printed.
        whole: the ``model_type`` of a model of images and text whose tower it is; it may have that one, too.
    """

    kind: str
    readout: Readout
    module: type[nn.Module] = VisionTransformer
    arguments: Mapping[str, Any] = field(default_factory=dict)
    says: str | None = None
    whole: str | None = None


_SIZES: Final = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
}
_VIT: Final = {**_SIZES, "intermediate_size": 3072, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True}
_DINOV2: Final = {
    **_SIZES,
    **{"mlp_ratio": 4.0, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True},
    **{"layerscale_value": 1.0, "use_swiglu_ffn": False, "use_mask_token": True, "reshape_hidden_states": True},
}
_DINOV3: Final = {
    **_SIZES,
    **{"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "hidden_act": "gelu"},
    **{"layer_norm_eps": 1e-5, "rope_theta": 100.0, "query_bias": True, "key_bias": False, "value_bias": True},
    **{"proj_bias": True, "mlp_bias": True, "layerscale_value": 1.0, "use_gated_mlp": False},
    **{"num_register_tokens": 0, "reshape_hidden_states": True},
}
_CLIP: Final = {
    **_SIZES,
    **{"patch_size": 32, "intermediate_size": 3072, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "projection_dim": 512,
}
_SIGLIP: Final = {
    **_SIZES,
    **{"intermediate_size": 3072, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True},
}

_HALF: Final = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 1.0, "crop_mode": "squash"}
_IMAGENET: Final = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "crop_mode": "center",
}
_OPENAI: Final = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    **{"crop_pct": 1.0, "crop_mode": "center", "interpolation": "bicubic"},
}
_BICUBIC: Final = {"interpolation": "bicubic"}
_BILINEAR: Final = {"interpolation": "bilinear"}

TYPES: Final = {
    "vit": ModelType(VIT, _VIT, {**_HALF, **_BILINEAR}),
    "deit": ModelType(VIT, _VIT, {**_HALF, **_BICUBIC, "crop_pct": 0.875}),
    "dinov2": ModelType(VIT, {**_DINOV2, "patch_size": 14}, {**_IMAGENET, **_BICUBIC}, any_size=True),
    "dinov2_with_registers": ModelType(
        VIT, {**_DINOV2, "num_register_tokens": 4}, {**_IMAGENET, **_BICUBIC}, any_size=True, antialias=True
    ),
    "dinov3_vit": ModelType(
        DINOV3, _DINOV3, {**_IMAGENET, **_BILINEAR, "crop_pct": 1.0, "crop_mode": "squash"}, any_size=True
    ),
    "clip_vision_model": ModelType(CLIP, _CLIP, _OPENAI),
    "siglip_vision_model": ModelType(CLIP, _SIGLIP, {**_HALF, **_BICUBIC}),
}

_CLASS_TOKEN: Final = "the features are the class token after the last norm"
_EMBEDDING: Final = "the outputs are the image's embedding"
_POOLED: Final = "the features are those of the attention pooling head"
_TOWER: Final = "the image tower is read"
_BOTH_HEADS: Final = "the logits are the mean of both heads'"

_DISTILLED: Final = {"reg_tokens": 1}
_REGISTERS: Final = {"no_embed_class": True}
_OF_CLIP: Final = {"pre_norm": True}
_OF_SIGLIP: Final = {"class_token": False}
_POOL: Final = {**_OF_SIGLIP, "global_pool": "map"}
_CLIP_MEAN: Final = {**_OF_CLIP, "global_pool": "avg", "final_norm": False}
_SIGLIP_MEAN: Final = {**_OF_SIGLIP, "global_pool": "avg"}


def _clip(readout: Readout, arguments: Mapping[str, Any], says: str | None = None) -> ModelClass:
    return ModelClass("clip_vision_model", readout, VisionTransformer, arguments, says, "clip")


def _siglip(readout: Readout, arguments: Mapping[str, Any], says: str | None = None) -> ModelClass:
    return ModelClass("siglip_vision_model", readout, VisionTransformer, arguments, says, "siglip")


_FEATURES, _CLASSES, _PROJECTION, _TOKENS = Readout

CLASSES: Final[Mapping[str, ModelClass]] = {
    "ViTForImageClassification": ModelClass("vit", _CLASSES),
    "ViTModel": ModelClass("vit", _FEATURES, says=_CLASS_TOKEN),
    "DeiTForImageClassification": ModelClass("deit", _CLASSES, arguments=_DISTILLED),
    "DeiTForImageClassificationWithTeacher": ModelClass("deit", _CLASSES, VisionTransformerDistilled, says=_BOTH_HEADS),
    "DeiTModel": ModelClass("deit", _FEATURES, arguments=_DISTILLED, says=_CLASS_TOKEN),
    "Dinov2ForImageClassification": ModelClass("dinov2", _CLASSES, ClassAndMeanViT),
    "Dinov2Model": ModelClass("dinov2", _FEATURES, says=_CLASS_TOKEN),
    "Dinov2WithRegistersForImageClassification": ModelClass(
        "dinov2_with_registers", _CLASSES, ClassAndMeanViT, _REGISTERS
    ),
    "Dinov2WithRegistersModel": ModelClass("dinov2_with_registers", _FEATURES, arguments=_REGISTERS, says=_CLASS_TOKEN),
    "DINOv3ViTModel": ModelClass("dinov3_vit", _FEATURES, Eva, says=_CLASS_TOKEN),
    "CLIPForImageClassification": _clip(_CLASSES, _CLIP_MEAN),
    "CLIPModel": _clip(_PROJECTION, _OF_CLIP, f"{_TOWER}; {_EMBEDDING}"),
    "CLIPVisionModel": _clip(_FEATURES, _OF_CLIP, _CLASS_TOKEN),
    "CLIPVisionModelWithProjection": _clip(_PROJECTION, _OF_CLIP, _EMBEDDING),
    "SiglipForImageClassification": _siglip(_CLASSES, _SIGLIP_MEAN),
    "SiglipModel": _siglip(_FEATURES, _POOL, f"{_TOWER}; {_POOLED}"),
    "SiglipVisionModel": _siglip(_FEATURES, _POOL, _POOLED),
}
"""By their names in ``architectures`` of config.json."""

LLAVA: Final = "LlavaForConditionalGeneration"

TOWERS: Final[Mapping[str, ModelClass]] = {
    "clip_vision_model": ModelClass("clip_vision_model", _TOKENS, VisionTransformer, _OF_CLIP, _TOWER, "llava"),
    "siglip_vision_model": ModelClass("siglip_vision_model", _TOKENS, VisionTransformer, _SIGLIP_MEAN, _TOWER, "llava"),
}
"""Towers that LLaVA may have, by their ``model_type``; SigLIP's is also that of a SiglipVisionModel without pooling."""

_RESAMPLED: Final = ": its resampler gives its language model as many tokens whatever is pruned"
_MERGED: Final = ": it merges neighbouring patches before its language model, and pruned patches have no neighbours"
_INSIDE: Final = ": its language model reads several layers of the tower by cross-attention"

REASONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("idefics", "idefics2", "flamingo", "blip-2", "blip_2_vision_model", "instructblip"), _RESAMPLED),
    **dict.fromkeys(("instructblipvideo", "kosmos-2", "aria", "minicpmv", "minicpmo"), _RESAMPLED),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm", "internvl", "gemma3"), _MERGED),
    **dict.fromkeys(("llama4", "mistral3", "glm4v", "ovis2"), _MERGED),
    "mllama": _INSIDE,
    **dict.fromkeys(("siglip2", "siglip2_vision_model"), ": it gives each image a size of its own (NaFlex)"),
    **dict.fromkeys(("pvt", "pvt_v2", "mvit"), ": its blocks have several resolutions"),
    **dict.fromkeys(
        ("swin", "swinv2", "donut-swin", "maskformer-swin", "hiera", "vitdet", "sam_vision_model", "sam2_vision_model"),
        ": its blocks attend inside windows, and dropped tokens would leave windows of unequal numbers of tokens",
    ),
    "vit_mae": ": it is for pre-training, and drops patches at random",
    "beit": ": its attention has biases of relative positions",
}
"""Why models of some types are not served."""
