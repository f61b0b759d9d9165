"""Column sums of ``UniformAttention``'s weights as one Triton kernel, from what fused attention leaves: log-sum-exp.

A weight is exp(scale · q·k − log-sum-exp of its row). Importance needs no weight by itself, only their sums over the
rows, so the products are made again, block by block, and no [B, H, S, S] is ever in memory. A program owns a block of
columns of one head and adds its rows up in order: sums do not depend on which program ran first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from sait_deploy.errors import InvalidArgument, MissingDependency

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    raise MissingDependency("triton", "compiling the GPU kernels", "tensorrt") from error

if TYPE_CHECKING:
    from torch import Tensor

ROWS: Final = 64
"""Rows added at a time. 64 by 64 products and two blocks of 64 heads' channels fit the registers of four warps."""

COLUMNS: Final = 64
"""Columns of a program."""

WARPS: Final = 4

MOST_HEAD_SIZE: Final = 256

SIGNATURE: Final = {
    "qkv_ptr": "*bf16",
    "lse_ptr": "*fp32",
    "tokens": "i32",
    "heads": "i32",
    "head_size": "i32",
    "scale_log2": "fp32",
    "sums_ptr": "*fp32",
}
"""Triton types of the launch arguments, as Triton finds them; ``qkv_ptr`` may be ``*fp16`` too."""

# A dot product of Triton's has at least 16 terms.
_LEAST_HEAD_BLOCK: Final = 16
_LOG2_E = tl.constexpr(math.log2(math.e))


def sait_column_sums(
    qkv_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    tokens: tl.tensor,
    heads: tl.tensor,
    head_size: tl.tensor,
    scale_log2: tl.tensor,
    sums_ptr: tl.tensor,
    head_block: tl.constexpr,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
) -> None:
    """Adds up a block of columns of one head of one image, those of the program."""
    image_head = tl.program_id(1)
    image, head = image_head // heads, image_head % heads
    columns = tl.program_id(0) * column_block + tl.arange(0, column_block)
    channels = tl.arange(0, head_block)
    width = heads * head_size
    # A large batch has more than 2^31 elements.
    start_ptr = qkv_ptr + image.to(tl.int64) * tokens * 3 * width + head * head_size
    real = channels[None, :] < head_size
    key_ptrs = start_ptr + width + columns[:, None] * 3 * width + channels[None, :]
    keys = tl.trans(tl.load(key_ptrs, mask=(columns[:, None] < tokens) & real, other=0.0))
    sums = tl.zeros([column_block], tl.float32)
    for first in range(0, tokens, row_block):
        rows = first + tl.arange(0, row_block)
        query_ptrs = start_ptr + rows[:, None] * 3 * width + channels[None, :]
        queries = tl.load(query_ptrs, mask=(rows[:, None] < tokens) & real, other=0.0)
        # Rows that are not there have an infinite log-sum-exp: their weights are 0.
        lse = tl.load(lse_ptr + image_head * tokens + rows, mask=rows < tokens, other=float("inf"))
        products = tl.dot(queries, keys, input_precision="ieee") * scale_log2
        sums += tl.sum(tl.exp2(products - lse[:, None] * _LOG2_E), 0)
    tl.store(sums_ptr + image_head * tokens + columns, sums, mask=columns < tokens)


# Sizes that are not specialised: a batch or model of another size reuses what is compiled.
KERNEL: Final[Any] = triton.jit(sait_column_sums, do_not_specialize=["tokens", "heads"])


def head_block(head_size: int) -> int:
    """Returns the power of two that covers the channels of a head.

    Raises:
        InvalidArgument: it has more than 256.
    """
    if not 1 <= head_size <= MOST_HEAD_SIZE:
        raise InvalidArgument(f"heads of {head_size} channels cannot be scored", f"1 to {MOST_HEAD_SIZE} can")
    return max(_LEAST_HEAD_BLOCK, 1 << (head_size - 1).bit_length())


def launch(qkv: Tensor, lse: Tensor, scale: float) -> Tensor:
    """Runs the kernel on the current CUDA device.

    Args:
        qkv: float16, bfloat16 or float32 [B*S, 3*H*Dh].
        lse: log-sum-exp of the scaled products of each row, natural, float32 [B, H, S].
        scale: factor of the products.

    Returns:
        Sums over the rows of the attention weights, float32 [B, H, S].

    Raises:
        InvalidArgument: shapes or dtypes do not fit each other.
    """
    batch, heads, tokens = lse.shape
    head_size = qkv.shape[1] // (3 * heads)
    if str(lse.dtype) != "torch.float32" or qkv.shape != (batch * tokens, 3 * heads * head_size):
        raise InvalidArgument(
            f"attention was to be scored on qkv {list(qkv.shape)} with {lse.dtype} {list(lse.shape)}",
            "it takes qkv [B*S, 3*H*Dh] and log-sum-exp float32 [B, H, S]",
        )
    sums = lse.new_empty((batch, heads, tokens))
    if sums.numel():
        KERNEL[(triton.cdiv(tokens, COLUMNS), batch * heads)](
            qkv.contiguous(), lse.contiguous(), tokens, heads, head_size, scale * _LOG2_E.value, sums,
            head_block=head_block(head_size), row_block=ROWS, column_block=COLUMNS, num_warps=WARPS,
        )  # fmt: skip
    return sums
