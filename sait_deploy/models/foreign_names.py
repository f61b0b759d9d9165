"""Vision transformers by the names and layouts of Hugging Face and of JAX, translated to timm's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from torch import Tensor

from sait_deploy.errors import ModelError
from sait_deploy.models.hugging_face_names import VIT, joined, layouts_of, renamed
from sait_deploy.models.hugging_face_names import translated as translated_from

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
    found = [(prefix, layout) for prefix, layout in layouts_of(tensors).items() if layout is VIT]
    return translated_from(tensors, VIT, found[0][0]).tensors if found else tensors


def _from_jax(tensors: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    prefix = min((n for n in tensors if n.endswith(_JAX_ANCHOR)), key=len).removesuffix(_JAX_ANCHOR)
    found: dict[str, Tensor] = {}
    inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}  # beside: the optimiser
    for name, tensor in inside.items():
        if name.startswith("pre_logits/"):
            raise ModelError(
                f"weights {origin} have a layer before the head, pre_logits, that timm's model does not have",
                "use weights that were fine-tuned without it",
            )
        own = renamed(name, _JAX_NAMES).replace("/", ".")
        stem, _, part = own.rpartition(".")
        if stem:
            own = f"{stem}.{ {'kernel': 'weight', 'scale': 'weight'}.get(part, part) }"
        found[own] = _torch_layout(own, tensor) if part in ("kernel", "bias") else tensor
    return joined(found)


def _torch_layout(name: str, tensor: Tensor) -> Tensor:
    """Returns a JAX kernel or bias as torch lays it out: outputs first, heads joined."""
    if name.endswith("bias"):
        return tensor.reshape(-1)
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)
    return tensor.flatten(0, -2).T if ".proj." in name else tensor.flatten(1).T
