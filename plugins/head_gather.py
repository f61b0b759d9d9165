"""ONNX text that the attention operators share: rows cut into heads and put where a transpose would put them.

A row of 3 H pieces (queries, keys and values of H heads) is read as 3 H rows of Dh. One gather per part then lays out
[B, H, W, Dh], so nothing is transposed, and one gather takes the result back. The index depends on the plan alone and
is the same in every block, so a runtime that merges equal expressions computes it once.
"""

from __future__ import annotations

from typing import Final

PIECES: Final = """
    zero = Constant <value = int32 {0}> ()
    one = Constant <value = int32 {1}> ()
    three = Constant <value = int32 {3}> ()
    front = Constant <value_ints: ints = [0]> ()
    second = Constant <value_ints: ints = [1]> ()
    rest = Constant <value_ints: ints = [-1]> ()
    heads = Constant <value_int: int = @num_heads> ()
    heads_i = Cast <to: int = 6> (heads)
    head_range = Range (zero, heads_i, one)

    pieces_per_row = Mul (heads_i, three)
    slots_of_heads = Unsqueeze (slots, second)
    first_pieces = Mul (slots_of_heads, pieces_per_row)
    head_column = Unsqueeze (head_range, second)
    query_index = Add (first_pieces, head_column)
    key_index = Add (query_index, heads_i)
    value_index = Add (key_index, heads_i)

    pieces_per_row_l = Cast <to: int = 7> (pieces_per_row)
    pieces_vector = Unsqueeze (pieces_per_row_l, front)
    by_piece = Concat <axis: int = 0> (front, pieces_vector, rest)
    row_pieces = Reshape (qkv, by_piece)
    pieces = Flatten <axis: int = 2> (row_pieces)
"""
"""From ``qkv`` [T, 3*H*Dh] and ``slots`` [B, W] to ``pieces`` [3*H*T, Dh] and where in them queries, keys and values
lie, int32 [B, H, W] each."""

GATHER_HEADS: Final = f"""{PIECES}
    query = Gather (pieces, query_index)
    key = Gather (pieces, key_index)
    value = Gather (pieces, value_index)
"""
"""From ``qkv`` [T, 3*H*Dh] and ``slots`` [B, W] to ``query``, ``key`` and ``value``, [B, H, W, Dh] each."""

PRODUCTS: Final = """
    scale_f = Constant <value_float: float = @scale> ()
    scale_t = CastLike (scale_f, query)
    scaled = Mul (query, scale_t)
    key_columns = Transpose <perm: ints = [0, 1, 3, 2]> (key)
    products = MatMul (scaled, key_columns)
    products_f = Cast <to: int = 1> (products)
"""
"""From ``query`` and ``key`` to their scaled products ``products_f``, float32 [B, H, W, W]."""

JOIN: Final = """
    width = Shape <start: int = 1, end: int = 2> (slots)
    width_i = Cast <to: int = 6> (width)
    lane = Mod (unslots, width_i)
    image_start = Sub (unslots, lane)
    image_pieces = Mul (image_start, heads_i)
    first_lanes = Add (image_pieces, lane)
    lane_column = Unsqueeze (first_lanes, second)
    head_lanes = Mul (head_range, width_i)
    join_index = Add (lane_column, head_lanes)
    attended_pieces = Flatten <axis: int = 3> (attended)
    joined = Gather (attended_pieces, join_index)
    by_row = Concat <axis: int = 0> (front, rest)
    output = Reshape (joined, by_row)
"""
"""From ``attended`` [B, H, W, Dh] and ``unslots`` [T] to ``output`` [T, H*Dh]."""

WEIGH_AND_JOIN: Final = f"""
    weights_t = CastLike (weights, value)
    attended = MatMul (weights_t, value)
{JOIN}"""
"""From ``weights`` float32 [B, H, W, W], ``value`` and ``unslots`` [T] to ``output`` [T, H*Dh]."""
