"""Numbers of packed rows and lanes that work is recorded or compiled for: few different ones, and batches keep any."""

from __future__ import annotations

from typing import Final

STEP: Final = 1.06
"""A bucket is about this much larger than the next: half of that, 3 %, is computed for nothing on average."""

_MULTIPLE: Final = 8
"""Matrix products run at full speed where their sizes are multiples of 16 bytes."""

_LANES: Final = 32
"""The longest image is rounded up to a multiple of this many: only attention is padded to it."""


def lanes_of(longest: int, tokens: int) -> int:
    """Returns the number of lanes, ``tokens`` at most, to run a batch with whose longest image keeps ``longest``."""
    return min(-(-longest // _LANES) * _LANES, tokens)


def bucket_of(total: int, most: int) -> int:
    """Returns the number of rows, ``most`` at most, to run a batch with that keeps ``total`` tokens.

    Buckets go down from ``most`` by the step, or by 8 where that is more, and are multiples of 8: those of a batch size
    are the same whatever was kept before.
    """
    bucket = most
    while True:
        smaller = min(int(bucket / STEP) + _MULTIPLE - 1, bucket - 1) // _MULTIPLE * _MULTIPLE
        if smaller < total:
            return bucket
        bucket = smaller
