"""A float graph → the same graph with linear layers in int8, by ONNX Runtime's own quantiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import onnx

from sait_deploy.quantization.layers import PRODUCTS, LinearLayer
from sait_deploy.system.loggers import errors_only

# What a layer returns stays float: residual additions, activations and attention lose accuracy in int8, and on a CPU it
# is faster not to round again.
_OPTIONS: Final = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
    "QuantizeBias": False,
}


def with_int8(model: onnx.ModelProto, ranges: Any, layers: Sequence[LinearLayer]) -> onnx.ModelProto:
    """Quantises inputs and weights of linear layers, in place, and returns the graph.

    Nodes and functions of ``ai.sait`` stay as they are. Weights are int8 for each output channel, inputs int8, both
    symmetric; what a layer returns is float32.

    Args:
        model: with all of its weights.
        ranges: of the layers' inputs, as ``input_ranges`` returns them.
        layers: which.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    nodes = [layer.node for layer in layers]
    if not nodes:
        return model
    with errors_only(""):
        quantizer = QDQQuantizer(
            model, True, False, QuantType.QInt8, QuantType.QInt8, ranges, nodes, [], list(PRODUCTS), dict(_OPTIONS)
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # the quantiser appends what it adds
    quantised: onnx.ModelProto = quantizer.model.model
    quantised.producer_name, quantised.producer_version = "sait-deploy", ""
    return quantised
