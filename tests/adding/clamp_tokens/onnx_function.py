"""``ClampTokens`` as standard ONNX operators."""

from __future__ import annotations

import onnx

from sait_deploy.plugins.onnx_form import operator_function
from tests.adding.clamp_tokens.spec import SPEC

_BODY = """
    most = Constant <value_float: float = @limit> ()
    least = Neg (most)
    clamped = Clip (tokens, least, most)
"""


def function(opset: int) -> onnx.FunctionProto:
    """Returns the operator as a model-local function."""
    return operator_function(SPEC, _BODY, opset)
