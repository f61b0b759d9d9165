"""What the prunable vision transformer is made of: timm's attention and pooling on flat and on packed tokens."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from timm.layers import AttentionPoolLatent
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sait_deploy.plugins.packed_attention.torch_op import packed_attention
from sait_deploy.plugins.uniform_attention.torch_op import uniform_attention
from sait_deploy.tokens import Score


class _Float32Norm(nn.Module):
    """A norm computed in float32 inside a model of lower precision."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.float())
        return normed.to(x.dtype)


def token_importance(weights: Tensor, prefix: int, score: Score) -> Tensor:
    """Turns attention weights float32 [B, H, S, S] into importance float32 [B, N], rows summing to 1."""
    if score is Score.CLS:
        return _shares(weights[:, :, 0, prefix:].mean(dim=1))
    return _shares(weights.mean(dim=2).mean(dim=1)[:, prefix:])


def _shares(seen: Tensor) -> Tensor:
    return seen / seen.sum(dim=1, keepdim=True)


def in_half_precision(vit: VisionTransformer) -> VisionTransformer:
    """Returns a copy in float16 whose norms still compute in float32."""
    half = copy.deepcopy(vit).half()
    norms = [name for name, module in half.named_modules() if "Norm" in type(module).__name__]
    for name in norms:
        half.set_submodule(name, _Float32Norm(half.get_submodule(name)))
    return half


class Layout(Protocol):
    """How the flat tokens [T, D] of a batch divide into images."""

    def attend(self, attn: Attention, x: Tensor) -> Tensor:
        """Runs attention inside each image, [T, D] to [T, D]."""
        ...

    def readout(self, vit: VisionTransformer, x: Tensor) -> Tensor:
        """Pools normalised tokens [T, D] and applies the head: [B, classes]."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every image has as many tokens, S: slots int32 [B, S] and unslots int32 [B*S] count them."""

    slots: Tensor
    unslots: Tensor

    @classmethod
    def of(cls, batch: int, tokens: int, device: torch.device) -> Uniform:
        """Lays out ``batch`` images of ``tokens`` tokens each."""
        rows = torch.arange(batch * tokens, dtype=torch.int32, device=device)
        return cls(rows.reshape(batch, tokens), rows)

    def scored(self, attn: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
        """Runs attention inside each image and returns its weights, float32 [B, H, S, S], too."""
        y, weights = uniform_attention(projected(attn, x), self.slots, self.unslots, attn.num_heads, attn.scale)
        return attn.proj(attn.norm(y)), weights

    def attend(self, attn: Attention, x: Tensor) -> Tensor:
        """Runs attention inside each image."""
        return self.scored(attn, x)[0]

    def readout(self, vit: VisionTransformer, x: Tensor) -> Tensor:
        """Pools and applies the head."""
        return _readout(vit, x.reshape(-1, self.slots.shape[1], x.shape[-1]))


@dataclass(frozen=True, slots=True)
class Packed:
    """Every image has its own number of tokens: slots int32 [B, W], unslots int32 [T], mask bool [B, 1, 1, W]."""

    slots: Tensor
    unslots: Tensor
    mask: Tensor

    def attend(self, attn: Attention, x: Tensor) -> Tensor:
        """Runs attention inside each image."""
        qkv = projected(attn, x)
        y = packed_attention(qkv, self.slots, self.unslots, self.mask, attn.num_heads, attn.scale)
        attended: Tensor = attn.proj(attn.norm(y))
        return attended

    def readout(self, vit: VisionTransformer, x: Tensor) -> Tensor:
        """Pools and applies the head."""
        return _readout_of_packed(vit, x, self)


def projected(attn: Attention, x: Tensor) -> Tensor:
    """Returns queries, keys and values of flat tokens [T, D], normalised as the model does: [T, 3*H*Dh]."""
    qkv: Tensor = attn.qkv(x)
    if isinstance(attn.q_norm, nn.Identity):
        return qkv
    q, k, v = qkv.reshape(-1, 3, attn.num_heads, attn.head_dim).unbind(1)
    return torch.cat([attn.q_norm(q), attn.k_norm(k), v], dim=1).reshape(-1, 3 * attn.attn_dim)


def _readout(vit: VisionTransformer, x: Tensor) -> Tensor:
    """Pools normalised tokens [B, S, D], prefix first, and applies the head."""
    if vit.attn_pool is None:
        logits: Tensor = vit.forward_head(x)
        return logits
    read = x if vit.pool_include_prefix else x[:, vit.num_prefix_tokens :]
    keys_values = vit.attn_pool.kv(read)
    logits = vit.head(vit.head_drop(vit.fc_norm(_attention_pool(vit.attn_pool, keys_values, None))))
    return logits


def _readout_of_packed(vit: VisionTransformer, x: Tensor, plan: Packed) -> Tensor:
    """Pools normalised packed tokens [T, D], those of each image alone, and applies the head."""
    if vit.global_pool == "token" or isinstance(vit, VisionTransformerDistilled):
        logits: Tensor = vit.forward_head(F.embedding(plan.slots[:, : vit.num_prefix_tokens], x))
        return logits
    first = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
    slots, mask = plan.slots[:, first:], plan.mask[..., first:]
    if vit.attn_pool is not None:
        keys_values = F.embedding(slots, vit.attn_pool.kv(x))
        pooled = _attention_pool(vit.attn_pool, keys_values, mask)
    else:
        pooled = _masked_pool(F.embedding(slots, x), mask[:, 0, 0, :, None], vit.global_pool)
    logits = vit.head(vit.head_drop(vit.fc_norm(pooled)))
    return logits


def _masked_pool(x: Tensor, real: Tensor, kind: str) -> Tensor:
    """Pools [B, W, D] over the lanes that are real, bool [B, W, 1], by timm's kinds: avg, max, avgmax."""
    mean = (x.float() * real).sum(dim=1) / real.sum(dim=1)
    if kind == "avg":
        return mean.to(x.dtype)
    largest = x.masked_fill(~real, torch.finfo(x.dtype).min).amax(dim=1)
    return largest if kind == "max" else 0.5 * (largest + mean.to(x.dtype))


def _attention_pool(pool: AttentionPoolLatent, keys_values: Tensor, mask: Tensor | None) -> Tensor:
    """Runs timm's latent attention pooling with a float32 softmax.

    Args:
        pool: the module.
        keys_values: what its key-value projection gives, [B, S, 2*H*Dh].
        mask: bool [B, 1, 1, S], the tokens to attend to; None for all.

    Returns:
        [B, D].
    """
    shape = (*keys_values.shape[:2], pool.num_heads, pool.head_dim)
    q = pool.q(pool.latent).reshape(1, pool.latent_len, pool.num_heads, pool.head_dim).transpose(1, 2)
    k, v = (part.reshape(shape).transpose(1, 2) for part in keys_values.chunk(2, dim=-1))
    q, k = pool.q_norm(q), pool.k_norm(k)
    scores = ((q * pool.scale) @ k.transpose(-2, -1)).float()
    weights = (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(dim=-1)
    y = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(-1, pool.latent_len, pool.num_heads * pool.head_dim)
    y = pool.proj(y)
    if pool.mlp is not None:
        y = y + pool.mlp(pool.norm(y))
    pooled: Tensor = y[:, 0] if pool.pool == "token" else y.mean(dim=1)
    return pooled
