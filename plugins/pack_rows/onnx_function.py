"""``PackRows`` as standard ONNX operators: two running sums and one scatter, all of static shape.

What lies before a token is kept or dropped, so the dropped ones before it are its index less the kept ones.
"""

from __future__ import annotations

from typing import Final

BODY: Final = """
    axis = Constant <value_int: int = 0> ()
    zero = Constant <value = int32 {0}> ()
    one = Constant <value = int32 {1}> ()
    zero_vector = Constant <value = int32[1] {0}> ()
    ends = CumSum (counts, axis)
    cu_seqlens = Concat <axis: int = 0> (zero_vector, ends)

    everything = Constant <value_ints: ints = [-1]> ()
    flat = Reshape (keep, everything)
    kept_before = CumSum <exclusive: int = 1> (flat, axis)
    size = Size (flat)
    size_i = Cast <to: int = 6> (size)
    index = Range (zero, size_i, one)
    dropped_before = Sub (index, kept_before)
    kept = ReduceSum <keepdims: int = 0> (flat)
    dropped_place = Add (dropped_before, kept)
    is_kept = Cast <to: int = 9> (flat)
    place = Where (is_kept, kept_before, dropped_place)
    rows = ScatterElements <axis: int = 0> (index, place, index)
"""
