"""A float graph → the same graph with linear layers in int8, by ONNX Runtime's own quantiser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnx

from sait_deploy import __version__
from sait_deploy.exporters.light import LARGEST_PROTOBUF
from sait_deploy.quantization.layers import PRODUCTS, LinearLayer
from sait_deploy.runtime.onnxruntime import require_onnxruntime
from sait_deploy.system.loggers import errors_only
from sait_deploy.system.scratch import temporary_files

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
    require_onnxruntime()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    nodes = [layer.node for layer in layers]
    if not nodes:
        return model
    with errors_only(""), temporary_files():  # it writes the graph there, and a kill leaves it
        quantizer = QDQQuantizer(
            model, True, False, QuantType.QInt8, QuantType.QInt8, ranges, nodes, [], list(PRODUCTS), dict(_OPTIONS)
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # the quantiser appends what it adds
    quantised: onnx.ModelProto = quantizer.model.model
    quantised.producer_name, quantised.producer_version = "sait-deploy", __version__
    _state_types(quantised.graph)
    return quantised


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a graph; with weights beside it, in a file of its name, where one file cannot hold them."""
    size = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    beside = path.with_name(f"{path.name}.data")
    beside.unlink(missing_ok=True)  # weights of a graph that was written there before would be added to
    onnx.save(model, str(path), save_as_external_data=size > LARGEST_PROTOBUF, location=beside.name)


def _state_types(graph: onnx.GraphProto) -> None:
    """States type and shape of what was added, as the graph does of all else: lowerings read them there."""
    shapes = {value.name: value.type.tensor_type.shape for value in (*graph.input, *graph.value_info)}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    types = {"QuantizeLinear": onnx.TensorProto.INT8, "DequantizeLinear": onnx.TensorProto.FLOAT}
    for node in graph.node:
        if node.op_type not in types:
            continue
        name, dims = node.output[0], weights[node.input[0]].dims if node.input[0] in weights else None
        value = onnx.helper.make_tensor_value_info(name, types[node.op_type], dims)
        if dims is None:
            value.type.tensor_type.shape.CopyFrom(shapes[node.input[0]])
        shapes[name] = value.type.tensor_type.shape
        graph.value_info.append(value)
