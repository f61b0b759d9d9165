"""Attention as the ``torch-cuda`` runtime computes it: torch's FLASH kernel on a GPU, its definition on a processor.

The kernel is called by its own operator. ``torch.nn.attention.varlen.varlen_attn`` calls the same one, but from torch
2.14 on takes cuDNN's where it can; dense and pruned are to be measured on one kernel, and what cuDNN does with rows
behind the last image is not documented.
"""

from __future__ import annotations

import itertools
from typing import Final

import torch
from torch import Tensor

from sait_deploy.errors import InvalidArgument
from sait_deploy.plugins.lanes import attend_lanes

_HEAD_STEP: Final = 8
_MOST_HEAD: Final = 256


def _parts(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values of rows [T, 3*H*Dh]: views [T, H, Dh].

    Raises:
        InvalidArgument: the kernel does not take heads of that size.
    """
    size = qkv.shape[1] // (3 * num_heads)
    if size % _HEAD_STEP or size > _MOST_HEAD:
        raise InvalidArgument(
            f"FLASH attention does not take heads of {size} channels",
            f"it takes multiples of {_HEAD_STEP} up to {_MOST_HEAD}: use another runtime",
        )
    q, k, v = qkv.reshape(-1, 3, num_heads, size).unbind(1)
    return q, k, v


def _lanes(qkv: Tensor, batch: int, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values of rows [B*S, 3*H*Dh]: views [B, H, S, Dh]."""
    q, k, v = (part.reshape(batch, -1, *part.shape[1:]).transpose(1, 2) for part in _parts(qkv, num_heads))
    return q, k, v


@torch.library.custom_op("sait::flash_uniform", mutates_args=(), device_types="cpu")
def flash_uniform(qkv: Tensor, batch: int, num_heads: int, scale: float) -> tuple[Tensor, Tensor]:
    """Attends inside images of as many tokens each.

    Args:
        qkv: float16 or bfloat16, and float32 on a processor, [B*S, 3*H*Dh].
        batch: B.
        num_heads: H.
        scale: factor of the products.

    Returns:
        As qkv, [B*S, H*Dh], and the natural log-sum-exp of each row's scaled products, float32 [B, H, S].
    """
    q, k, v = _lanes(qkv, batch, num_heads)
    y, _ = attend_lanes(q, k, v, scale)
    products = (q.float() @ k.float().transpose(-2, -1)) * scale
    return y.flatten(0, 1), products.logsumexp(dim=-1)


@flash_uniform.register_kernel("cuda")
def _(qkv: Tensor, batch: int, num_heads: int, scale: float) -> tuple[Tensor, Tensor]:
    q, k, v = (part.reshape(batch, -1, *part.shape[1:]) for part in _parts(qkv, num_heads))
    tokens = q.shape[1]
    y, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, tokens, tokens, 0.0, False, False, scale=scale
    )
    return y.reshape(qkv.shape[0], -1), lse


@flash_uniform.register_fake
def _(qkv: Tensor, batch: int, num_heads: int, scale: float) -> tuple[Tensor, Tensor]:
    rows = qkv.shape[0]
    lse = qkv.new_empty((batch, num_heads, rows // batch), dtype=torch.float32)
    return qkv.new_empty((rows, qkv.shape[1] // 3)), lse


@torch.library.custom_op("sait::flash_packed", mutates_args=(), device_types="cpu")
def flash_packed(qkv: Tensor, cu_seqlens: Tensor, longest: int, num_heads: int, scale: float) -> Tensor:
    """Attends inside each image of a packed batch; there may be rows behind the last image.

    Args:
        qkv: as ``flash_uniform`` takes it, [T, 3*H*Dh].
        cu_seqlens: int32 [B+1], where images begin and end; its last is at most T.
        longest: tokens that no image has more of.
        num_heads: H.
        scale: factor of the products.

    Returns:
        As qkv, [T, H*Dh]. Rows behind the last image hold anything; on a processor, NaN.
    """
    y = qkv.new_full((qkv.shape[0], qkv.shape[1] // 3), float("nan"))
    ends = cu_seqlens.tolist()
    for first, end in itertools.pairwise(ends):
        if end - first > longest:
            raise RuntimeError(f"an image has {end - first} tokens, more than {longest}")
        if end > first:
            y[first:end] = attend_lanes(*_lanes(qkv[first:end], 1, num_heads), scale)[0][0]
    return y


@flash_packed.register_kernel("cuda")
def _(qkv: Tensor, cu_seqlens: Tensor, longest: int, num_heads: int, scale: float) -> Tensor:
    q, k, v = _parts(qkv, num_heads)
    y, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, cu_seqlens, cu_seqlens, longest, longest, 0.0, False, False, scale=scale
    )
    output: Tensor = y.reshape(qkv.shape[0], -1)
    return output


@flash_packed.register_fake
def _(qkv: Tensor, cu_seqlens: Tensor, longest: int, num_heads: int, scale: float) -> Tensor:
    return qkv.new_empty((qkv.shape[0], qkv.shape[1] // 3))


@torch.library.custom_op("sait::attention_column_sums", mutates_args=(), device_types="cpu")
def attention_column_sums(qkv: Tensor, lse: Tensor, scale: float) -> Tensor:
    """Adds up the attention weights of each column, from what ``flash_uniform`` was given and returned.

    Args:
        qkv: [B*S, 3*H*Dh].
        lse: float32 [B, H, S].
        scale: factor of the products.

    Returns:
        float32 [B, H, S].
    """
    q, k, _ = _lanes(qkv, lse.shape[0], lse.shape[1])
    products = (q.float() @ k.float().transpose(-2, -1)) * scale
    return (products - lse[..., None]).exp().sum(dim=2)


@attention_column_sums.register_kernel("cuda")
def _(qkv: Tensor, lse: Tensor, scale: float) -> Tensor:
    from sait_deploy.plugins.uniform_attention.triton_kernel import launch

    with torch.cuda.device(qkv.device):
        return launch(qkv, lse, scale)


@attention_column_sums.register_fake
def _(qkv: Tensor, lse: Tensor, scale: float) -> Tensor:
    return torch.empty_like(lse)
