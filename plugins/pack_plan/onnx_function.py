"""``PackPlan`` as standard ONNX operators: one scatter for the batch."""

from __future__ import annotations

from typing import Final

# Every padding lane writes what its image's first lane writes, so the order of the scatter does not matter.
BODY: Final = """
    zero = Constant <value = int32 {0}> ()
    one = Constant <value = int32 {1}> ()
    first = Constant <value_ints: ints = [0]> ()
    second = Constant <value_ints: ints = [1]> ()
    last = Constant <value_ints: ints = [-1]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()
    mask_axes = Constant <value_ints: ints = [1, 2]> ()

    start_vector = Slice (cu_seqlens, first, last)
    end_vector = Slice (cu_seqlens, second, end)
    starts = Unsqueeze (start_vector, second)
    length_vector = Sub (end_vector, start_vector)
    lengths = Unsqueeze (length_vector, second)
    real = Less (lanes, lengths)
    rows = Add (starts, lanes)
    slots = Where (real, rows, starts)
    mask = Unsqueeze (real, mask_axes)

    batch = Size (start_vector)
    batch_i = Cast <to: int = 6> (batch)
    width = Size (lanes)
    width_i = Cast <to: int = 6> (width)
    images = Range (zero, batch_i, one)
    images_column = Unsqueeze (images, second)
    bases = Mul (images_column, width_i)
    lane_places = Add (bases, lanes)
    places = Where (real, lane_places, bases)
    flat_slots = Reshape (slots, last)
    flat_places = Reshape (places, last)
    rows_there = Shape (kept)
    first_lanes = ConstantOfShape <value: tensor = int32[1] {0}> (rows_there)
    unslots = ScatterElements <axis: int = 0> (first_lanes, flat_slots, flat_places)
"""
