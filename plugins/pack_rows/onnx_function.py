"""``PackRows`` as standard ONNX operators: two running sums and one scatter, all of static shape.

What lies before a token is kept or dropped, so the dropped ones before it are its index less the kept ones. Kept ones
are summed image by image: one thread of ONNX Runtime's CUDA kernel sums a whole row.
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
    columns = Constant <value_int: int = 1> ()
    columns_vector = Constant <value_ints: ints = [1]> ()
    before_in_image = CumSum <exclusive: int = 1> (keep, columns)
    begins = Sub (ends, counts)
    begin_column = Unsqueeze (begins, columns_vector)
    kept_before_rows = Add (before_in_image, begin_column)
    kept_before = Reshape (kept_before_rows, everything)
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
