"""Vision transformers by the names and layouts of Hugging Face and of JAX, translated to timm's."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

import torch
from torch import Tensor

from sait_deploy.errors import ModelError

_HF_BLOCK: Final = re.compile(r"(.*?)encoder\.layer\.0\.attention\.attention\.query\.weight")
_HF_QKV: Final = re.compile(r"(blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)")
_HF_NAMES: Final = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"layernorm\.", "norm."),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.", r"blocks.\1."),
)
_HF_HEADS: Final = {"classifier": "head", "cls_classifier": "head", "distillation_classifier": "head_dist"}

_JAX_ANCHOR: Final = "embedding/kernel"
_JAX_BLOCK: Final = r"Transformer/encoderblock_(\d+)/"
_JAX_NAMES: Final = (
    (r"embedding/", "patch_embed.proj."),
    (r"cls$", "cls_token"),
    (r"(Transformer/posembed_input/)?pos_embedding$", "pos_embed"),
    (r"Transformer/encoder_norm/", "norm."),
    (r"head/", "head."),
    (_JAX_BLOCK + r"LayerNorm_0/", r"blocks.\1.norm1."),
    (_JAX_BLOCK + r"LayerNorm_\d/", r"blocks.\1.norm2."),
    (_JAX_BLOCK + r"MultiHeadDotProductAttention_\d/out/", r"blocks.\1.attn.proj."),
    (_JAX_BLOCK + r"MultiHeadDotProductAttention_\d/(query|key|value)/", r"blocks.\1.attn.\2."),
    (_JAX_BLOCK + r"MlpBlock_\d/Dense_0/", r"blocks.\1.mlp.fc1."),
    (_JAX_BLOCK + r"MlpBlock_\d/Dense_1/", r"blocks.\1.mlp.fc2."),
)

_UNREAD: Final = (
    ("self_attn.q_proj.weight", "Hugging Face's CLIP or SigLIP"),
    ("self_attention.in_proj_weight", "torchvision"),
    ("attn.w_msa.qkv.weight", "MMPretrain's windowed attention"),
    ("ffn.layers.0.0.weight", "MMPretrain"),
    ("attn.in_proj_weight", "OpenCLIP"),
)
"""Ends of names in layouts that are not read, and whose they are."""


def unread_layout(names: Collection[str]) -> str | None:
    """Returns whose layout names are of, where it is a known one that is not read; None else."""
    return next((whose for end, whose in _UNREAD if any(name.endswith(end) for name in names)), None)


def translated(tensors: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Returns tensors by timm's names and in its layouts, where they are of Hugging Face's or JAX's; else as they are.

    Args:
        tensors: of the checkpoint.
        origin: the file's name, for errors.

    Raises:
        ModelError: the model has a layer that timm's has not.
    """
    if any(name.endswith(_JAX_ANCHOR) for name in tensors):
        return _from_jax(tensors, origin)
    anchor = next(filter(None, map(_HF_BLOCK.fullmatch, tensors)), None)
    return tensors if anchor is None else _from_hugging_face(tensors, anchor[1])


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Returns a name with the first rule that its beginning matches applied."""
    for pattern, new in rules:
        if re.match(pattern, name):
            return re.sub(pattern, new, name, count=1)
    return name


def _from_hugging_face(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = name.removeprefix(prefix)
        module, _, part = name.rpartition(".")
        head = _HF_HEADS.get(module.rpartition(".")[2])
        if name.startswith(prefix) and own.startswith("pooler."):
            continue  # classification reads the class token itself
        renamed[f"{head}.{part}" if head else _renamed(own, _HF_NAMES)] = tensor
    return _joined(renamed)


def _from_jax(tensors: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    prefix = min((n for n in tensors if n.endswith(_JAX_ANCHOR)), key=len).removesuffix(_JAX_ANCHOR)
    renamed: dict[str, Tensor] = {}
    inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}  # beside: the optimiser
    for name, tensor in inside.items():
        if name.startswith("pre_logits/"):
            raise ModelError(
                f"weights {origin} have a layer before the head, pre_logits, that timm's model does not have",
                "use weights that were fine-tuned without it",
            )
        own = _renamed(name, _JAX_NAMES).replace("/", ".")
        stem, _, part = own.rpartition(".")
        if stem:
            own = f"{stem}.{ {'kernel': 'weight', 'scale': 'weight'}.get(part, part) }"
        renamed[own] = _torch_layout(own, tensor) if part in ("kernel", "bias") else tensor
    return _joined(renamed)


def _torch_layout(name: str, tensor: Tensor) -> Tensor:
    """Returns a JAX kernel or bias as torch lays it out: outputs first, heads joined."""
    if name.endswith("bias"):
        return tensor.reshape(-1)
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)
    return tensor.flatten(0, -2).T if ".proj." in name else tensor.flatten(1).T


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Joins queries, keys and values of each block; where one of the three is missing, they stay."""
    joined = dict(tensors)
    for name in tensors:
        found = _HF_QKV.fullmatch(name)
        if found is None or found[2] != "query":
            continue
        three = [f"{found[1]}{part}.{found[3]}" for part in ("query", "key", "value")]
        if all(one in tensors for one in three):
            joined[f"{found[1]}qkv.{found[3]}"] = torch.cat([joined.pop(one) for one in three])
    return joined
