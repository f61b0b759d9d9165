"""Graphs without the values of their weights, so that rearranging a graph copies no weights."""

from __future__ import annotations

from typing import Final

import onnx

_SMALL_BYTES: Final = 4096
"""Weights up to this size are kept, as they are shapes and axes, whose values tools read."""

LARGEST_PROTOBUF: Final = 1_900_000_000
"""Bytes of weights above which they go into a file of their own, as a protobuf message holds at most 2 GiB."""

_PARTS: Final = ("node", "input", "output", "value_info")


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model in which larger weights have a type and a shape, but no values.

    The copy is made field by field, because protobuf frees no memory when a field is cleared later.
    """
    light = onnx.ModelProto(
        ir_version=model.ir_version, producer_name=model.producer_name, producer_version=model.producer_version
    )
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.metadata_props.extend(model.metadata_props)
    light.graph.name = model.graph.name
    for part in _PARTS:
        getattr(light.graph, part).extend(getattr(model.graph, part))
    for weight in model.graph.initializer:
        if weight.ByteSize() <= _SMALL_BYTES:
            light.graph.initializer.append(weight)
        else:
            light.graph.initializer.add(
                name=weight.name,
                dims=weight.dims,
                data_type=weight.data_type,
                data_location=onnx.TensorProto.EXTERNAL,
            )
    return light


def put_weights_back(light: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Gives a graph made from a light copy the weights of the model, by their names."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    for weight in light.graph.initializer:
        if weight.data_location == onnx.TensorProto.EXTERNAL and not weight.external_data:
            weight.CopyFrom(weights[weight.name])
