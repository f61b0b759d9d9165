"""``MassTokenSelect`` as standard ONNX operators.

Only the *values* of the descending sort are used: runtimes agree on those, and not on the order of indices among ties.
With K tokens kept, the K-th largest score is the edge; what lies above it is kept, and of the ties on it the first few.
"""

from __future__ import annotations

from typing import Final

from sait_deploy.plugins.mass_token_select.spec import RESOLUTION

BODY: Final = f"""
    axis = Constant <value_int: int = 1> ()
    columns = Constant <value_ints: ints = [1]> ()
    zero = Constant <value = int32 {{0}}> ()
    one = Constant <value = int32 {{1}}> ()
    steps = Constant <value = float {{{RESOLUTION}.0}}> ()
    scaled = Mul (importance, steps)
    rounded = Round (scaled)
    score = Cast <to: int = 6> (rounded)

    size = Shape <start: int = 1, end: int = 2> (importance)
    ranked, ranked_index = TopK <axis: int = 1, largest: int = 1, sorted: int = 1> (score, size)
    before = CumSum <exclusive: int = 1> (ranked, axis)
    before_f = Cast <to: int = 1> (before)
    total = ReduceSum <keepdims: int = 1> (score, columns)
    total_f = Cast <to: int = 1> (total)
    mass_column = Unsqueeze (mass, columns)
    share = Mul (total_f, mass_column)
    limit = Ceil (share)

    prefix = Constant <value_int: int = @prefix> ()
    prefix_i = Cast <to: int = 6> (prefix)
    prefixed = Min (prefix_i, one)
    floor = Sub (one, prefixed)
    limits_min, limits_max = Split <axis: int = 1, num_outputs: int = 2> (keep_limits)
    least = Max (limits_min, floor)
    patches = Squeeze (size)
    patches_i = Cast <to: int = 6> (patches)
    rank = Range (zero, patches_i, one)
    below_least = Less (rank, least)
    below_most = Less (rank, limits_max)
    below_limit = Less (before_f, limit)
    one_f = Constant <value = float {{1.0}}> ()
    everything = GreaterOrEqual (mass_column, one_f)
    wanted = Or (below_limit, everything)
    allowed = And (below_most, wanted)
    kept_rank = Or (below_least, allowed)
    kept_rank_i = Cast <to: int = 6> (kept_rank)
    kept = ReduceSum <keepdims: int = 1> (kept_rank_i, columns)

    kept_index = Sub (kept, one)
    edge_index = Max (kept_index, zero)
    edge_index_l = Cast <to: int = 7> (edge_index)
    edge = GatherElements <axis: int = 1> (ranked, edge_index_l)
    above = Greater (score, edge)
    above_i = Cast <to: int = 6> (above)
    above_count = ReduceSum <keepdims: int = 1> (above_i, columns)
    ties_wanted = Sub (kept, above_count)
    tie = Equal (score, edge)
    tie_i = Cast <to: int = 6> (tie)
    ties_before = CumSum <exclusive: int = 1> (tie_i, axis)
    first_tie = Less (ties_before, ties_wanted)
    kept_tie = And (tie, first_tie)
    keep_patch = Or (above, kept_tie)
    keep_patch_f = Cast <to: int = 1> (keep_patch)

    zero_axis = Constant <value_ints: ints = [0]> ()
    prefix_vector = Unsqueeze (prefix, zero_axis)
    pad_rest = Constant <value_ints: ints = [0, 0]> ()
    pad_front = Constant <value_ints: ints = [0]> ()
    pads = Concat <axis: int = 0> (pad_front, prefix_vector, pad_rest)
    keep_f = Pad (keep_patch_f, pads, one_f)
    keep = Cast <to: int = 6> (keep_f)
    kept_flat = Squeeze (kept, columns)
    counts = Add (kept_flat, prefix_i)
"""
