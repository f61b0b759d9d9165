"""The prunable vision transformer: a timm model whose tokens are dropped inside one block.

The weights are timm's own and stay as they are; no parameter is added. Linear layers and norms run on one flat
[tokens, D] matrix: ONNX Runtime fuses a bias into Gemm on two dimensions only, and packed batches need that layout.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import AttentionPoolLatent, PatchEmbed
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.manifest import Precision
from sait_deploy.plugins.mass_token_select.spec import MAX_PATCH_TOKENS
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.schedule import Geometry, Score

_SUPPORTED = "timm's VisionTransformer and VisionTransformerDistilled: ViT, DeiT, DeiT-3, DINOv2, CLIP, SigLIP"


@dataclass(frozen=True, slots=True)
class FixedPruning:
    """Every image keeps the same number of patch tokens.

    Attributes:
        score: how importance is read off the attention.
        prune_at: index of the block after whose attention, before whose MLP, tokens are dropped.
        kept: patch tokens kept per image.
    """

    score: Score
    prune_at: int
    kept: int


def check_supported(model: nn.Module) -> VisionTransformer:
    """Returns the model if it can be pruned.

    Raises:
        ModelError: its class, or the class of a part that pruning reaches into, is another one; it has no readout; or
            it has more patch tokens than selection ranks.
    """
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise ModelError(f"a model of class {type(model).__name__} cannot be pruned", f"supported are {_SUPPORTED}")
    vit: VisionTransformer = model
    _check_parts(vit)
    if not vit.global_pool:
        raise ModelError("a model that returns all of its tokens has no readout", "create it with a global_pool")
    if vit.patch_embed.num_patches > MAX_PATCH_TOKENS:
        raise ModelError(
            f"{vit.patch_embed.num_patches} patch tokens are more than the {MAX_PATCH_TOKENS} that selection ranks",
            "choose a smaller --imgsz or a larger patch",
        )
    return vit


def _check_parts(vit: VisionTransformer) -> None:
    parts: list[tuple[object, type]] = [(vit.patch_embed, PatchEmbed)]
    for block in vit.blocks:
        parts.append((block, Block))
        if type(block) is Block:
            parts.append((block.attn, Attention))
    if vit.attn_pool is not None:
        parts.append((vit.attn_pool, AttentionPoolLatent))
    for part, wanted in parts:
        if type(part) is not wanted:
            raise ModelError(
                f"a {type(vit).__name__} made of {type(part).__name__} cannot be pruned",
                f"supported are {_SUPPORTED} made of {wanted.__name__}",
            )
    if any(getattr(block.attn, "gate", None) is not None for block in vit.blocks):
        raise ModelError(f"a {type(vit).__name__} with gated attention cannot be pruned", f"supported are {_SUPPORTED}")


def _linear_macs(module: nn.Module) -> int:
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))


def geometry_of(vit: VisionTransformer) -> Geometry:
    """Reads the sizes that MACs follow from off a supported model."""
    block = vit.blocks[0]
    projection = vit.patch_embed.proj
    readout, readout_per_token = _linear_macs(vit.head), 0
    if isinstance(vit, VisionTransformerDistilled):
        readout += _linear_macs(vit.head_dist)
    if vit.attn_pool is not None:
        pool = vit.attn_pool
        width = pool.num_heads * pool.head_dim
        readout_per_token = _linear_macs(pool.kv) + 2 * pool.latent_len * width
        readout += pool.latent_len * (_linear_macs(pool) - _linear_macs(pool.kv))
        if not vit.pool_include_prefix:
            readout -= vit.num_prefix_tokens * readout_per_token
    return Geometry(
        depth=len(vit.blocks),
        width=vit.embed_dim,
        attention_width=block.attn.attn_dim,
        patch_tokens=vit.patch_embed.num_patches,
        prefix_tokens=vit.num_prefix_tokens,
        embed_macs=vit.patch_embed.num_patches * projection.weight.numel(),
        attention_macs_per_token=_linear_macs(block.attn),
        mlp_macs_per_token=_linear_macs(block.mlp),
        readout_macs=readout,
        readout_macs_per_token=readout_per_token,
    )


class _Float32Norm(nn.Module):
    """A norm computed in float32 inside a model of lower precision."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.float())
        return normed.to(x.dtype)


def _in_half_precision(vit: VisionTransformer) -> VisionTransformer:
    """Returns a copy in float16 whose norms still compute in float32."""
    half = copy.deepcopy(vit).half()
    norms = [name for name, module in half.named_modules() if "Norm" in type(module).__name__]
    for name in norms:
        half.set_submodule(name, _Float32Norm(half.get_submodule(name)))
    return half


class Traced(NamedTuple):
    """What one forward pass computed; the selection's fields are None in a dense pass.

    Attributes:
        logits: float32 [B, classes], or features [B, D] of a headless model.
        counts: int32 [B], tokens kept per image, prefix included.
        keep: int32 [B, P+N], 1 where a token was kept.
        importance: float32 [B, N].
    """

    logits: Tensor
    counts: Tensor | None
    keep: Tensor | None
    importance: Tensor | None


class PrunableViT(nn.Module):
    """A supported timm model, dense or pruned to a fixed number of tokens, in inference mode.

    Args:
        vit: the timm model; at fp32 its modules are used as they are, not copied.
        pruning: None for the dense form.
        precision: element type of weights and activations; inputs and outputs are float32 in either case.

    Raises:
        ModelError: the model is not supported.
        InvalidArgument: the pruning does not fit the model.
    """

    def __init__(self, vit: nn.Module, pruning: FixedPruning | None, precision: Precision = Precision.FP32) -> None:
        super().__init__()
        supported = check_supported(vit)
        if pruning is not None:
            check_pruning(supported, pruning)
        self.vit = supported if precision is Precision.FP32 else _in_half_precision(supported)
        self.vit.eval()
        self.pruning = pruning
        self.dtype = torch.float32 if precision is Precision.FP32 else torch.float16
        self.prefix = supported.num_prefix_tokens
        self.patches = supported.patch_embed.num_patches

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Classifies a batch, float32 [B, 3, H, W], normalised: logits and, where tokens are pruned, counts."""
        traced = self.trace(images)
        return (traced.logits,) if traced.counts is None else (traced.logits, traced.counts)

    def trace(self, images: Tensor, keep: Tensor | None = None) -> Traced:
        """Runs a batch and returns what selection saw and decided beside the answer.

        Args:
            images: float32 [B, 3, H, W], normalised.
            keep: int32 [B, P+N] to force in place of the model's own selection, as many tokens in each image as the
                pruning keeps.
        """
        vit = self.vit
        tokens = self.prefix + self.patches
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images.to(self.dtype))))
        h = x.reshape(-1, x.shape[-1])
        counts = importance = None
        for index, block in enumerate(vit.blocks):
            if self.pruning is not None and index == self.pruning.prune_at:
                update, weights = attention(block.attn, block.norm1(h), tokens)
                h = h + block.ls1(update)
                importance = self.importance(weights, self.pruning.score)
                keep, counts = self._select(importance, self.pruning.kept) if keep is None else (keep, keep.sum(1))
                tokens = self.prefix + self.pruning.kept
                rows, _ = pack_rows(keep, counts.to(torch.int32))
                h = h.index_select(0, rows[: images.shape[0] * tokens])
            else:
                h = h + block.ls1(attention(block.attn, block.norm1(h), tokens)[0])
            h = h + block.ls2(block.mlp(block.norm2(h)))
        x = vit.norm(h).reshape(-1, tokens, h.shape[-1])
        return Traced(_readout(vit, x).float(), counts, keep, importance)

    def importance(self, weights: Tensor, score: Score) -> Tensor:
        """Turns attention weights float32 [B, H, S, S] into importance float32 [B, N], rows summing to 1."""
        if score is Score.CLS:
            seen = weights[:, :, 0, self.prefix :].mean(dim=1)
        else:
            seen = weights.flatten(1, 2).mean(dim=1)[:, self.prefix :]
        return seen / seen.sum(dim=1, keepdim=True)

    def _select(self, importance: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        batch = importance.shape[0]
        mass = torch.ones(batch, dtype=torch.float32, device=importance.device)
        limits = torch.full((batch, 2), kept, dtype=torch.int32, device=importance.device)
        keep, counts = mass_token_select(importance, mass, limits, self.prefix)
        return keep, counts


def attention(attn: Attention, x: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Runs timm's attention on flat tokens, written out so that the weights can be read.

    Args:
        attn: the module whose projections and norms are used.
        x: [B*S, D].
        tokens: S, tokens per image.

    Returns:
        The projected output [B*S, D] and the attention weights float32 [B, H, S, S].
    """
    heads = (-1, tokens, attn.num_heads, attn.head_dim)
    # Three projections: splitting one wide result costs a copy of all of it on CPUs.
    weight, bias = attn.qkv.weight.chunk(3), (None,) * 3 if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
    q, k, v = (F.linear(x, w, b).reshape(heads).transpose(1, 2) for w, b in zip(weight, bias, strict=True))
    q, k = attn.q_norm(q), attn.k_norm(k)
    weights = ((q * attn.scale) @ k.transpose(-2, -1)).float().softmax(dim=-1)
    y = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(-1, attn.attn_dim)
    return attn.proj(attn.norm(y)), weights


def _attention_pool(pool: AttentionPoolLatent, x: Tensor) -> Tensor:
    """Runs timm's latent attention pooling on [B, S, D] with a float32 softmax: [B, D]."""
    shape = (-1, x.shape[1], pool.num_heads, pool.head_dim)
    q = pool.q(pool.latent).reshape(1, pool.latent_len, pool.num_heads, pool.head_dim).transpose(1, 2)
    k, v = (part.reshape(shape).transpose(1, 2) for part in pool.kv(x).chunk(2, dim=-1))
    q, k = pool.q_norm(q), pool.k_norm(k)
    weights = ((q * pool.scale) @ k.transpose(-2, -1)).float().softmax(dim=-1)
    y = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(-1, pool.latent_len, pool.num_heads * pool.head_dim)
    y = pool.proj(y)
    if pool.mlp is not None:
        y = y + pool.mlp(pool.norm(y))
    pooled: Tensor = y[:, 0] if pool.pool == "token" else y.mean(dim=1)
    return pooled


def _readout(vit: VisionTransformer, x: Tensor) -> Tensor:
    """Pools normalised tokens [B, S, D], prefix first, and applies the head."""
    if vit.attn_pool is None:
        logits: Tensor = vit.forward_head(x)
        return logits
    pooled = _attention_pool(vit.attn_pool, x if vit.pool_include_prefix else x[:, vit.num_prefix_tokens :])
    logits = vit.head(vit.fc_norm(pooled))
    return logits


def check_pruning(vit: VisionTransformer, pruning: FixedPruning) -> None:
    """Checks that a pruning fits a model.

    Raises:
        InvalidArgument: no such block, no class token to score by, or more tokens to keep than there are.
    """
    depth = len(vit.blocks)
    if not 0 <= pruning.prune_at < depth:
        raise InvalidArgument(
            f"prune_at {pruning.prune_at} is no block of a model of depth {depth}", f"0 to {depth - 1}"
        )
    if pruning.score is Score.CLS and not vit.has_class_token:
        raise InvalidArgument("score 'cls' needs a class token, which this model has not", "use --score mean")
    if not 1 <= pruning.kept <= vit.patch_embed.num_patches:
        raise InvalidArgument(f"{pruning.kept} of {vit.patch_embed.num_patches} patch tokens cannot be kept")
