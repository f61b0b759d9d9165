"""``ReadExtents`` as standard ONNX operators: a slice and a range."""

from __future__ import annotations

from typing import Final

BODY: Final = """
    zero = Constant <value = int32 {0}> ()
    one = Constant <value = int32 {1}> ()
    first = Constant <value_ints: ints = [0]> ()
    second = Constant <value_ints: ints = [1]> ()
    last = Constant <value_ints: ints = [-1]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()

    total_i = Slice (cu_seqlens, last, end)
    total = Cast <to: int = 7> (total_i)
    kept = Slice (rows, first, total)

    starts = Slice (cu_seqlens, first, last)
    ends = Slice (cu_seqlens, second, end)
    lengths = Sub (ends, starts)
    longest = ReduceMax <keepdims: int = 0> (lengths)
    lanes = Range (zero, longest, one)
"""
