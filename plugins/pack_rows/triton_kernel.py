"""``PackRows`` as one Triton kernel: a block of threads per image, nothing in memory but inputs and outputs.

Each image adds up the finished counts before its own, so that no image waits for another, and nothing is passed between
them: the result does not depend on the order in which they run.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sait_deploy.errors import InvalidArgument, MissingDependency
from sait_deploy.plugins.ptx import CompiledKernel, compile_kernel
from sait_deploy.plugins.thread_blocks import covering, warps_for

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    raise MissingDependency("triton", "compiling the GPU kernels", "tensorrt") from error

if TYPE_CHECKING:
    from torch import Tensor

SIGNATURE: Final = {
    "keep_ptr": "*i32",
    "counts_ptr": "*i32",
    "batch": "i32",
    "tokens": "i32",
    "rows_ptr": "*i32",
    "cu_seqlens_ptr": "*i32",
}
"""Types of the launch arguments: inputs, sizes, outputs, as TensorRT passes them."""

SIZES: Final = ("batch", "tokens")

MAX_TOKENS: Final = 8192
"""Tokens of an image that one block of threads covers: 4,096 patch tokens and as many prefix tokens."""

_IMAGES = tl.constexpr(256)
"""Counts added up at a time."""


def sait_pack_rows(
    keep_ptr: tl.tensor,
    counts_ptr: tl.tensor,
    batch: tl.tensor,
    tokens: tl.tensor,
    rows_ptr: tl.tensor,
    cu_seqlens_ptr: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Places the tokens of one image, the one of the program."""
    image = tl.program_id(0)
    first = image * tokens
    place = tl.arange(0, block)
    real = place < tokens
    keep = tl.load(keep_ptr + first + place, mask=real, other=0)
    own = tl.load(counts_ptr + image)

    before = tl.zeros([_IMAGES], tl.int32)
    every = tl.zeros([_IMAGES], tl.int32)
    for start in range(0, batch, _IMAGES):
        other = start + tl.arange(0, _IMAGES)
        counts = tl.load(counts_ptr + other, mask=other < batch, other=0)
        before += tl.where(other < image, counts, 0)
        every += counts
    kept_before = tl.sum(before, 0)
    kept_in_all = tl.sum(every, 0)

    kept = kept_before + tl.cumsum(keep, 0)
    row = tl.where(keep != 0, kept - 1, kept_in_all + first + place - kept)
    # Counts that are not those of keep would send rows elsewhere: nothing is written outside.
    inside = real & (row >= 0) & (row < batch * tokens)
    tl.store(rows_ptr + row, first + place, mask=inside)
    tl.store(cu_seqlens_ptr + image + 1, kept_before + own)
    if image == 0:
        tl.store(cu_seqlens_ptr, 0)


# Sizes that are not specialised: a batch or model of another size reuses what is compiled.
KERNEL: Final[Any] = triton.jit(sait_pack_rows, do_not_specialize=list(SIZES))


def block_size(tokens: int) -> int:
    """Returns the power of two that covers a row of tokens.

    Raises:
        InvalidArgument: there are more than 8,192 tokens.
    """
    if not 1 <= tokens <= MAX_TOKENS:
        raise InvalidArgument(f"PackRows was given {tokens} tokens per image", f"it packs 1 to {MAX_TOKENS} of each")
    return covering(tokens)


@cache
def compiled(tokens: int, sm: int) -> CompiledKernel:
    """Returns the kernel for images of so many tokens, prefix included, on GPUs of one compute capability (89 for 8.9).

    Raises:
        InvalidArgument: see :func:`block_size` and :func:`sait_deploy.plugins.ptx.compile_kernel`.
        BuilderUnavailable: what Triton made cannot be loaded by anyone else.
    """
    block = block_size(tokens)
    return compile_kernel(KERNEL, SIGNATURE, {"block": block}, warps=warps_for(block), sm=sm)


def launch(keep: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the kernel on the current CUDA device.

    Shapes and dtypes are those of :func:`sait_deploy.plugins.pack_rows.reference.pack_rows`.

    Raises:
        InvalidArgument: more than 8,192 tokens per image, 2^31 in all, or another dtype.
    """
    batch, tokens = keep.shape
    block = block_size(tokens)
    kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (keep, counts)]
    if kinds != ["int32", "int32"] or batch * tokens >= 2**31:
        raise InvalidArgument(
            f"PackRows was given keep {kinds[0]} [{batch}, {tokens}] and counts {kinds[1]}",
            "it takes int32, and fewer than 2^31 tokens in all",
        )
    rows, cu_seqlens = keep.new_empty((batch * tokens,)), counts.new_empty((batch + 1,))
    if batch:
        KERNEL[(batch,)](
            keep.contiguous(), counts.contiguous(), batch, tokens, rows, cu_seqlens,
            block=block, num_warps=warps_for(block), enable_fp_fusion=False,
        )  # fmt: skip
    else:
        cu_seqlens.zero_()
    return rows, cu_seqlens
