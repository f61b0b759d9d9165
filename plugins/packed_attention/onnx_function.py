"""``PackedAttention`` as standard ONNX operators."""

from __future__ import annotations

import onnx

from sait_deploy.plugins.head_gather import GATHER_HEADS, PRODUCTS, WEIGH_AND_JOIN
from sait_deploy.plugins.onnx_form import operator_function
from sait_deploy.plugins.packed_attention.spec import SPEC

# A padding lane repeats its image's first row, so its score is at most the row's largest, and e^-50 takes it out of the
# sum to far below float32's resolution. A lower bias would make the softmax compute subnormal numbers, on which CPUs
# are slow.
_SOFTMAX = """
    nothing = Constant <value = float {0.0}> ()
    never = Constant <value = float {-50.0}> ()
    bias = Where (mask, nothing, never)
    scores = Add (products_f, bias)
    weights = Softmax <axis: int = -1> (scores)
"""

_BODY = GATHER_HEADS + PRODUCTS + _SOFTMAX + WEIGH_AND_JOIN


def function(opset: int) -> onnx.FunctionProto:
    """Returns the operator as a model-local function for a model at ``opset`` (18 to 24)."""
    return operator_function(SPEC, _BODY, opset)
