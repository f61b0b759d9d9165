"""Parts that families share: importance from attention weights, pooling over tokens, heads, and half precision."""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from sait_deploy.errors import ModelError
from sait_deploy.tokens import Score


@runtime_checkable
class FoldsNorms(Protocol):
    """A module whose batch norms can be made part of its convolutions."""

    def fold_norms(self) -> None:
        """Does so, for inference alone."""


class _Float32Norm(nn.Module):
    """A norm computed in float32 inside a model of lower precision."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.float())
        return normed.to(x.dtype)


def in_half_precision(model: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    """Returns a copy for inference in float16 or bfloat16 whose norms and rotary positions still compute in float32."""
    half = copy.deepcopy(model).eval()
    for module in list(half.modules()):
        if isinstance(module, FoldsNorms):
            module.fold_norms()
    half = half.to(dtype)
    for name, module in model.named_modules():
        if "Rotary" in type(module).__name__:  # positions are computed from periods, whose rounding would move them
            half.set_submodule(name, copy.deepcopy(module))
    named = {name: module for name, module in half.named_modules() if "Norm" in type(module).__name__}
    for name in (name for name, module in named.items() if not any(module.children())):
        half.set_submodule(name, _Float32Norm(half.get_submodule(name)))
    return half


def token_importance(weights: Tensor, prefix: int, score: Score) -> Tensor:
    """Turns attention weights float32 [B, H, S, S] into importance float32 [B, N], rows summing to 1."""
    if score is Score.CLS:
        return importance_shares(weights[:, :, 0], prefix)
    return importance_shares(weights.mean(dim=2), prefix)


def importance_shares(seen: Tensor, prefix: int) -> Tensor:
    """Turns how much each token is seen by each head, float32 [B, H, S], into importance float32 [B, N]."""
    seen = seen.mean(dim=1)[:, prefix:]
    return seen / seen.sum(dim=1, keepdim=True)


def linear_macs(module: nn.Module) -> int:
    """Returns the multiply-accumulates of a module's linear layers for one token."""
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))


def head_outputs(head: nn.Module, width: int) -> int:
    """Returns the width of a head's output; 0 of a head that gives the features as they are."""
    if isinstance(head, nn.Identity):
        return 0
    if isinstance(head, nn.Linear):
        return head.out_features
    like = next(head.parameters(), torch.empty(0))
    with torch.no_grad():
        logits = copy.deepcopy(head).eval()(torch.zeros(1, width, dtype=like.dtype, device=like.device))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ModelError("the head returns no logits [B, classes]", "give the model a head that does")
    return int(logits.shape[1])


def masked_pool(x: Tensor, real: Tensor, kind: str) -> Tensor:
    """Pools [B, W, D] over the lanes that are real, bool [B, W, 1], by timm's kinds: avg, max, avgmax."""
    mean = (_at_least_float32(x) * real).sum(dim=1) / real.sum(dim=1)
    if kind == "avg":
        return mean.to(x.dtype)
    largest = x.masked_fill(~real, torch.finfo(x.dtype).min).amax(dim=1)
    return largest if kind == "max" else 0.5 * (largest + mean.to(x.dtype))


def attention_pool(pool: AttentionPoolLatent, keys_values: Tensor, mask: Tensor | None) -> Tensor:
    """Runs timm's latent attention pooling with a softmax in at least float32.

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
    scores = _at_least_float32((q * pool.scale) @ k.transpose(-2, -1))
    weights = (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(dim=-1)
    y = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(-1, pool.latent_len, pool.num_heads * pool.head_dim)
    y = pool.proj_drop(pool.proj(y))
    if pool.mlp is not None:
        y = y + pool.mlp(pool.norm(y))
    pooled: Tensor = y[:, 0] if pool.pool == "token" else y.mean(dim=1)
    return pooled


def gathered(slots: Tensor, x: Tensor) -> Tensor:
    """Returns the tokens of [T, D] that slots int32 [B, W] name: [B, W, D]."""
    return F.embedding(slots, x)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
