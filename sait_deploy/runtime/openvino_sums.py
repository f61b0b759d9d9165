"""Whether OpenVINO's int8 products are exact on this processor.

Without instructions that add int8 products in 32 bits (VNNI), two of them are added in 16 bits first, and what does not
fit is cut off. Ranges as wide as int8 then give wrong sums, and no error.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_ROWS, _WIDTH = 16, 64
EXACT: Final = "in 32 bits"
SATURATING: Final = "pairs in 16 bits, which saturate: this processor has no VNNI, so answers may be off"


@functools.cache
def int8_sums(core: Any, device: str) -> str:
    """Multiplies the largest int8 numbers on a device of OpenVINO's, and returns how they were added, in words.

    Args:
        core: OpenVINO's.
        device: its name.
    """
    compiled = core.compile_model(core.read_model(_largest_product().SerializeToString()), device)
    found: NDArray[np.float32] = next(iter(compiled({"rows": np.ones((_ROWS, _WIDTH), np.float32)}).values()))
    return EXACT if np.allclose(found, _WIDTH, rtol=1e-2) else SATURATING


def _largest_product() -> onnx.ModelProto:
    """Returns a product of ones by ones, each quantised to 127: every number of the answer is the width."""
    step = np.float32(1 / 127)
    constants: dict[str, NDArray[Any]] = {
        "step": np.array(step),
        "zero": np.array(0, np.int8),
        "weight": np.full((_WIDTH, _WIDTH), 127, np.int8),
        "steps": np.full(_WIDTH, step),
        "zeros": np.zeros(_WIDTH, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["rows", "step", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "step", "zero"], ["left"]),
        helper.make_node("DequantizeLinear", ["weight", "steps", "zeros"], ["right"], axis=1),
        helper.make_node("MatMul", ["left", "right"], ["sums"]),
    ]
    given = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [_ROWS, _WIDTH])
    sums = helper.make_tensor_value_info("sums", TensorProto.FLOAT, [_ROWS, _WIDTH])
    initialisers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "largest", [given], [sums], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
