"""``MassTokenSelect`` as one Triton kernel: a block of threads per image, nothing in memory but inputs and outputs.

A key holds a token's score above its reversed index, so that one sort of keys ranks by score, ties by lower index, and
still knows where each token came from: every kept bit is written straight to its place. Keys are 32 bits wide as long
as score and index fit. One block covers a row, so nothing is read or written twice.

The rounding is the addition and subtraction of 1.5 * 2^23: sums in [2^23, 2^24) have steps of 1, and float32 addition
rounds half to even. The product with 2^20 before it is exact, so that fusing the two would change nothing.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sait_deploy.errors import InvalidArgument, MissingDependency
from sait_deploy.plugins.mass_token_select.spec import MAX_PATCH_TOKENS, RESOLUTION
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
    "importance_ptr": "*fp32",
    "mass_ptr": "*fp32",
    "keep_limits_ptr": "*i32",
    "patches": "i32",
    "tokens": "i32",
    "keep_ptr": "*i32",
    "counts_ptr": "*i32",
}
"""Types of the launch arguments: inputs, sizes, outputs, as TensorRT passes them."""

SIZES: Final = ("patches", "tokens")

_STEPS = tl.constexpr(float(RESOLUTION))
_ROUNDER = tl.constexpr(1.5 * 2**23)
# A score takes 21 bits and a sign bit is not to be touched, which leaves ten for the index.
_NARROW_KEYS = tl.constexpr(1024)


def sait_mass_token_select(
    importance_ptr: tl.tensor,
    mass_ptr: tl.tensor,
    keep_limits_ptr: tl.tensor,
    patches: tl.tensor,
    tokens: tl.tensor,
    keep_ptr: tl.tensor,
    counts_ptr: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Selects the tokens of one image, the one of the program."""
    image = tl.program_id(0)
    prefix = tokens - patches
    place = tl.arange(0, block)
    real = place < patches
    importance = tl.load(importance_ptr + image * patches + place, mask=real, other=0.0)
    mass = tl.load(mass_ptr + image)
    least = tl.load(keep_limits_ptr + 2 * image)
    most = tl.load(keep_limits_ptr + 2 * image + 1)

    score = ((importance * _STEPS + _ROUNDER) - _ROUNDER).to(tl.int32)
    # What is summed is a whole number: it is below ceil(share) exactly when it is below the share.
    share = tl.sum(score, 0).to(tl.float32) * mass
    limit = tl.where(mass >= 1.0, float("inf"), share)

    key = tl.where(real, score, -1)
    if block > _NARROW_KEYS:
        key = key.to(tl.int64)
    key = tl.sort(key * block + (block - 1 - place), descending=True)
    index = block - 1 - (key & (block - 1)).to(tl.int32)
    # Padding ranks last, so that the first ranks are the real ones.
    ranked = tl.where(real, (key // block).to(tl.int32), 0)
    before = (tl.cumsum(ranked, 0) - ranked).to(tl.float32)

    least = tl.maximum(least, tl.where(prefix == 0, 1, 0))
    kept = real & ((place < least) | ((place < most) & (before < limit)))
    row_ptr = keep_ptr + image * tokens
    # Scores that should not be may rank padding among the real ones; memory is kept safe all the same.
    tl.store(row_ptr + prefix + index, kept.to(tl.int32), mask=real & (index < patches))
    for start in range(0, prefix, block):
        tl.store(row_ptr + start + place, 1, mask=start + place < prefix)
    tl.store(counts_ptr + image, tl.sum(kept.to(tl.int32), 0) + prefix)


# Sizes that are not specialised: a batch or model of another size reuses what is compiled.
KERNEL: Final[Any] = triton.jit(sait_mass_token_select, do_not_specialize=list(SIZES))


def block_size(patches: int) -> int:
    """Returns the power of two that covers a row of patch tokens.

    Raises:
        InvalidArgument: there are more than 4,096 patch tokens.
    """
    if not 1 <= patches <= MAX_PATCH_TOKENS:
        raise InvalidArgument(
            f"MassTokenSelect was given {patches} patch tokens", f"it selects among 1 to {MAX_PATCH_TOKENS}"
        )
    return covering(patches)


@cache
def compiled(patches: int, sm: int) -> CompiledKernel:
    """Returns the kernel for images of so many patch tokens on GPUs of one compute capability (89 for 8.9).

    Raises:
        InvalidArgument: see :func:`block_size` and :func:`sait_deploy.plugins.ptx.compile_kernel`.
        BuilderUnavailable: what Triton made cannot be loaded by anyone else.
    """
    block = block_size(patches)
    return compile_kernel(KERNEL, SIGNATURE, {"block": block}, warps=warps_for(block), sm=sm)


def launch(importance: Tensor, mass: Tensor, keep_limits: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Runs the kernel on the current CUDA device.

    Shapes and dtypes are those of :func:`sait_deploy.plugins.mass_token_select.reference.mass_token_select`.

    Raises:
        InvalidArgument: more than 4,096 patch tokens, 2^31 tokens in all, or another dtype.
    """
    batch, patches = importance.shape
    tokens = prefix + patches
    block = block_size(patches)
    kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (importance, mass, keep_limits)]
    if kinds != ["float32", "float32", "int32"] or batch * tokens >= 2**31:
        raise InvalidArgument(
            f"MassTokenSelect was given importance {kinds[0]} [{batch}, {patches}], mass {kinds[1]} and keep_limits "
            f"{kinds[2]}",
            "it takes float32, float32 and int32, and fewer than 2^31 tokens in all",
        )
    keep, counts = keep_limits.new_empty((batch, tokens)), keep_limits.new_empty((batch,))
    if batch:
        KERNEL[(batch,)](
            importance.contiguous(), mass.contiguous(), keep_limits.contiguous(), patches, tokens, keep, counts,
            block=block, num_warps=warps_for(block), enable_fp_fusion=False,
        )  # fmt: skip
    return keep, counts
