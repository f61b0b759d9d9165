"""Names of Hugging Face's vision transformers, translated to timm's: one table for each of their layouts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from sait_deploy.errors import ModelError

Rules = tuple[tuple[str, str], ...]
"""Beginnings of names, as patterns, and what stands for them; the first that matches is applied."""

_QKV: Final = re.compile(r"(blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class NameLayout:
    """How a library names the tensors of its vision transformers.

    Attributes:
        models: whose names they are, for errors.
        anchor: the name of the patch embedding's weight; what stands before it in a checkpoint is the model's prefix.
        rules: from names behind the prefix to timm's.
        left_out: pattern of names behind the prefix that no answer reads.
        beside: pattern of names without the prefix that are of other models in the same file, such as one of text.
    """

    models: str
    anchor: str
    rules: Rules
    left_out: str
    beside: str = r"(?!)"


class Translated(NamedTuple):
    """Tensors by timm's names, and the names in the file of those that are left out."""

    tensors: dict[str, Tensor]
    left_out: list[str]


VIT: Final = NameLayout(
    models="Hugging Face's ViT, DeiT and DINOv2",
    anchor="embeddings.patch_embeddings.projection.weight",
    rules=(
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.distillation_token", "dist_token"),
        (r"embeddings\.register_tokens", "register_tokens"),
        (r"embeddings\.mask_token", "mask_token"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"layernorm\.", "norm."),
        (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
        (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
        (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
        (r"encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
        (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
        (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.", r"blocks.\1.mlp.fc2."),
        (r"encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
        (r"encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
        (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
        (r"encoder\.layer\.(\d+)\.", r"blocks.\1."),
    ),
    left_out=r"pooler\.",
)

CLIP: Final = NameLayout(
    models="Hugging Face's CLIP and SigLIP",
    anchor="embeddings.patch_embedding.weight",
    rules=(
        (r"embeddings\.class_embedding", "cls_token"),
        (r"embeddings\.position_embedding\.weight", "pos_embed"),
        (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"pre_layrnorm\.", "norm_pre."),
        (r"post_layernorm\.", "norm."),
        (r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.", r"blocks.\1.attn.query."),
        (r"encoder\.layers\.(\d+)\.self_attn\.k_proj\.", r"blocks.\1.attn.key."),
        (r"encoder\.layers\.(\d+)\.self_attn\.v_proj\.", r"blocks.\1.attn.value."),
        (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
        (r"encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"blocks.\1.norm\2."),
        (r"encoder\.layers\.(\d+)\.", r"blocks.\1."),
        (r"head\.probe", "attn_pool.latent"),
        (r"head\.attention\.in_proj_", "attn_pool.qkv."),
        (r"head\.attention\.out_proj\.", "attn_pool.proj."),
        (r"head\.layernorm\.", "attn_pool.norm."),
        (r"head\.mlp\.", "attn_pool.mlp."),
    ),
    left_out=r"embeddings\.position_ids",
    beside=r"text_model\.|text_projection\.|logit_(scale|bias)$",
)

DINOV3: Final = NameLayout(
    models="Hugging Face's DINOv3",
    anchor="embeddings.patch_embeddings.weight",
    rules=(
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.register_tokens", "reg_token"),
        (r"embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"(?:model\.)?layer\.(\d+)\.attention\.q_proj\.", r"blocks.\1.attn.query."),
        (r"(?:model\.)?layer\.(\d+)\.attention\.k_proj\.", r"blocks.\1.attn.key."),
        (r"(?:model\.)?layer\.(\d+)\.attention\.v_proj\.", r"blocks.\1.attn.value."),
        (r"(?:model\.)?layer\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.proj."),
        (r"(?:model\.)?layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.gamma_\2"),
        (r"(?:model\.)?layer\.(\d+)\.mlp\.gate_proj\.", r"blocks.\1.mlp.fc1_g."),
        (r"(?:model\.)?layer\.(\d+)\.mlp\.up_proj\.", r"blocks.\1.mlp.up."),
        (r"(?:model\.)?layer\.(\d+)\.mlp\.down_proj\.", r"blocks.\1.mlp.fc2."),
        (r"(?:model\.)?layer\.(\d+)\.", r"blocks.\1."),
    ),
    left_out=r"embeddings\.mask_token|rope_embeddings\.",
)

LAYOUTS: Final = (VIT, CLIP, DINOV3)

HEADS: Final = {
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
    "visual_projection": "head",
}
"""Linear layers beside the model, by the last part of their names, and what timm calls them."""


def layouts_of(names: Iterable[str]) -> dict[str, NameLayout]:
    """Returns the layouts that names are of, by what stands before the names of each model."""
    found = {}
    for name in names:
        layout = next((one for one in LAYOUTS if f".{name}".endswith(f".{one.anchor}")), None)
        if layout is not None:
            found[name.removesuffix(layout.anchor)] = layout
    return found


def translated(tensors: Mapping[str, Tensor], layout: NameLayout, prefix: str) -> Translated:
    """Returns a model's tensors by timm's names and in its layouts; names that are not known stay.

    Args:
        tensors: of a checkpoint.
        layout: of the model's names.
        prefix: what stands before them.
    """
    named: dict[str, Tensor] = {}
    left = []
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        head = HEADS.get(module.rpartition(".")[2])
        own = name.removeprefix(prefix)
        if head is not None:
            named[f"{head}.{part}"] = tensor
        elif re.match(layout.left_out if name.startswith(prefix) else layout.beside, own):
            left.append(name)
        elif not name.startswith(prefix):
            named[name] = tensor
        else:
            named[renamed(own, layout.rules)] = tensor
    if layout is CLIP:
        named = _without_modules(named)
    elif layout is DINOV3:
        named = _named_mlp(named)
    return Translated(joined(named, absent_biases=layout is DINOV3), left)


def renamed(name: str, rules: Rules) -> str:
    """Returns a name with the first rule that its beginning matches applied."""
    for pattern, new in rules:
        if re.match(pattern, name):
            return re.sub(pattern, new, name, count=1)
    return name


def joined(tensors: Mapping[str, Tensor], *, absent_biases: bool = False) -> dict[str, Tensor]:
    """Joins queries, keys and values of each block; where one of the three is missing, they stay.

    Args:
        tensors: by timm's names but for these three.
        absent_biases: whether a bias that is missing beside others is one of zeros.
    """
    found = dict(tensors)
    stems = {(match[1], match[3]) for match in map(_QKV.fullmatch, tensors) if match is not None}
    for attention, kind in sorted(stems):
        three = [f"{attention}{part}.{kind}" for part in ("query", "key", "value")]
        if absent_biases and kind == "bias":
            like = next(found[one] for one in three if one in found)
            found.update({one: torch.zeros_like(like) for one in three if one not in found})
        if all(one in found for one in three):
            found[f"{attention}qkv.{kind}"] = torch.cat([found.pop(one) for one in three])
    return found


def _without_modules(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors of embedding and attention modules as timm has them: parameters with a batch, three projections.

    Raises:
        ModelError: the pooling head's projections are not three of equal width.
    """
    found = dict(tensors)
    if "cls_token" in found:
        found["cls_token"] = found["cls_token"].reshape(1, 1, -1)
    if found.get("pos_embed", torch.empty(0)).ndim == 2:
        found["pos_embed"] = found["pos_embed"].unsqueeze(0)
    for kind in ("weight", "bias"):
        three = found.pop(f"attn_pool.qkv.{kind}", None)
        if three is None:
            continue
        if three.shape[0] % 3:
            raise ModelError(
                f"head.attention.in_proj_{kind} has {three.shape[0]} rows, which are no three projections",
                "download the weights again",
            )
        width = three.shape[0] // 3
        found[f"attn_pool.q.{kind}"], found[f"attn_pool.kv.{kind}"] = three[:width], three[width:]
    return found


def _named_mlp(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors with the first layer of each MLP called as timm does, which depends on whether it is gated."""
    found = {}
    for name, tensor in tensors.items():
        gated = name.replace(".mlp.up.weight", ".mlp.fc1_g.weight").replace(".mlp.up.bias", ".mlp.fc1_g.bias")
        first = ".mlp.fc1_x." if gated in tensors else ".mlp.fc1."
        found[name.replace(".mlp.up.", first)] = tensor
    return found
