"""``UniformAttention`` as standard ONNX operators."""

from __future__ import annotations

import onnx

from sait_deploy.plugins.head_gather import GATHER_HEADS, PRODUCTS, WEIGH_AND_JOIN
from sait_deploy.plugins.onnx_form import operator_function
from sait_deploy.plugins.uniform_attention.spec import SPEC

_BODY = f"""{GATHER_HEADS}{PRODUCTS}
    weights = Softmax <axis: int = -1> (products_f)
{WEIGH_AND_JOIN}"""


def function(opset: int) -> onnx.FunctionProto:
    """Returns the operator as a model-local function for a model at ``opset`` (18 to 24)."""
    return operator_function(SPEC, _BODY, opset)
