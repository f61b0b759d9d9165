"""Function bodies of ``ai.sait`` operators for ONNX Runtime CUDA, where each standard operator is a launch of its own.

They give the same bits as the bodies in ``plugins/``, which are for every runtime, in about half as many launches.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sait_deploy.plugins.mass_token_select.spec import MAX_PATCH_TOKENS, RESOLUTION
from sait_deploy.plugins.mass_token_select.spec import SPEC as MASS_TOKEN_SELECT
from sait_deploy.plugins.onnx_form import operator_function
from sait_deploy.plugins.uniform_attention.spec import SPEC as UNIFORM_ATTENTION

MICROSOFT: Final = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

_ABOVE_ALL: Final = 1.5
"""Importance of prefix tokens: above that of any patch, so that they have the first ranks."""

_BASE: Final = 1.5 * 2**23
"""From here to 2^24 the steps of float32 are 1, so that a cast to it drops what breaks ties."""

_TIE: Final = 2.0**-14
"""A place's share in a key: all places together are less than half a step of importance."""

_FIRST: Final = np.iinfo(np.int32).min

# A key is a score and, in its fraction, the place: no two are equal, so ranks need no order among ties. The score is
# int32 on its way, so that NaN becomes a number and no index of the sort leaves its row. All sums are whole numbers
# below 2^24, exact in float32 in any order. `reach` is above every sum where mass is 1 or more.
_SELECT: Final = f"""
    axis = Constant <value_int: int = 1> ()
    columns = Constant <value_ints: ints = [1]> ()
    steps = Constant <value = float {{{RESOLUTION}.0}}> ()
    scaled = Mul (tokens, steps)
    rounded = Round (scaled)
    score = Cast <to: int = 6> (rounded)
    score_d = Cast <to: int = 11> (score)
    key = Add (score_d, places)
    ranked, index = TopK <axis: int = 1, largest: int = 1, sorted: int = 1> (key, size)

    based = Cast <to: int = 1> (ranked)
    shares = Add (based, bases)
    before = CumSum <exclusive: int = 1> (shares, axis)
    total = ReduceSum <keepdims: int = 1> (shares, columns)
    mass_column = Unsqueeze (mass, columns)
    share = Mul (total, mass_column)
    beyond = Floor (mass_column)
    reach = Add (share, beyond)
    wanted = Less (before, reach)

    least, most = Split <axis: int = 1, num_outputs: int = 2> (keep_limits)
    surely = Less (ranks, least)
    allowed = Less (ranks, most)
    chosen = And (allowed, wanted)
    kept = Or (surely, chosen)
    kept_i = Cast <to: int = 6> (kept)
    counts = ReduceSum <keepdims: int = 0> (kept_i, columns)
    keep = ScatterElements <axis: int = 1> (kept_i, index, kept_i)
"""

_PREFIX: Final = """
    pads = Constant <value_ints: ints = [0, {prefix}, 0, 0]> ()
    above_all = Constant <value = float {{{above_all}}}> ()
    tokens = Pad (importance, pads, above_all)
"""

_SCORING: Final = """
    front = Constant <value_ints: ints = [0]> ()
    parts = Constant <value_ints: ints = [3]> ()
    rest = Constant <value_ints: ints = [-1]> ()
    heads = Constant <value_int: int = @num_heads> ()
    heads_vector = Unsqueeze (heads, front)
    extent = Shape (slots)
    by_part_shape = Concat <axis: int = 0> (extent, parts, heads_vector, rest)
    apart = Reshape (qkv, by_part_shape)
    by_part = Transpose <perm: ints = [2, 0, 3, 1, 4]> (apart)
    query_part, key_part, value_part = Split <axis: int = 0, num_outputs: int = 3> (by_part)
    query = Squeeze (query_part, front)
    key = Squeeze (key_part, front)
    value = Squeeze (value_part, front)

    products = com.microsoft.FusedMatMul <alpha: float = @scale, transB: int = 1> (query, key)
    products_f = Cast <to: int = 1> (products)
    weights = Softmax <axis: int = -1> (products_f)
    weights_t = Cast <to: int = {element}> (weights)
    attended = MatMul (weights_t, value)
    lanes = Transpose <perm: ints = [0, 2, 1, 3]> (attended)
    output = Flatten <axis: int = 2> (lanes)
"""


def selection_body(opset: int, prefix: int, patches: int) -> onnx.FunctionProto:
    """Returns ``MassTokenSelect`` for one number of prefix and patch tokens; at most 4,096 patches."""
    assert patches <= MAX_PATCH_TOKENS
    begin = _PREFIX.format(prefix=prefix, above_all=_ABOVE_ALL) if prefix else "    tokens = Identity (importance)\n"
    function = operator_function(MASS_TOKEN_SELECT, begin + _SELECT, opset)
    size = prefix + patches
    ranks = np.arange(size, dtype=np.int32) - np.int32(prefix)
    bases = np.full(size, -_BASE, np.float32)
    bases[:prefix] -= np.float32(_ABOVE_ALL * RESOLUTION)
    # What is always kept has ranks below every limit: prefix tokens, and without any the first patch.
    ranks[: max(prefix, 1)] = _FIRST
    constants: dict[str, NDArray[Any]] = {
        "size": np.array([size], np.int64),
        "places": _BASE + _TIE * np.arange(size, 0, -1, dtype=np.float64),
        "bases": bases,
        "ranks": ranks,
    }
    made = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))
        for name, array in constants.items()
    ]
    nodes = [*made, *function.node]
    del function.node[:]
    function.node.extend(nodes)
    return function


def scoring_body(opset: int, element: int) -> onnx.FunctionProto:
    """Returns ``UniformAttention`` whose heads are laid out by one transpose, and not by gathers.

    Args:
        opset: of the standard operators.
        element: ONNX's number of the element type of ``qkv``.
    """
    function = operator_function(UNIFORM_ATTENTION, _SCORING.format(element=element), opset)
    function.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return function
