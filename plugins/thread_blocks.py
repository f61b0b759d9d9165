"""How many threads a row gets: what the GPU kernels that take one block of threads per image have in common."""

from __future__ import annotations

from typing import Final

_LEAST_BLOCK: Final = 32
_MOST_WARPS: Final = 16


def covering(elements: int) -> int:
    """Returns the power of two, at least 32, that covers a row of so many elements: Triton's blocks are such."""
    return max(_LEAST_BLOCK, 1 << (elements - 1).bit_length())


def warps_for(block: int) -> int:
    """Returns the warps for a block: two elements a thread, while a block may have that many threads.

    More threads would wait for each other oftener than they would save work, fewer would each have more to do.
    """
    return min(max(block // 64, 1), _MOST_WARPS)
