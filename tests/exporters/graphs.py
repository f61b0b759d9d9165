"""Finished graphs of small models, made once, and what tests ask of them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.exporters.finish import FinishOptions, OperatorForm, finish
from sait_deploy.exporters.trace import trace
from sait_deploy.manifest import Precision
from sait_deploy.models import FixedPruning, PrunableViT
from sait_deploy.schedule import Score
from tests.tiny import family, small_vit

OPSET: Final = 20
DEPTH: Final = 2
PRUNING: Final = FixedPruning(Score.MEAN, 1, 6)
METADATA: Final = {"sait.id": "one", "sait.form": "density"}


def vit_named(name: str) -> VisionTransformer:
    """A family's small model, or ``plain``: two blocks of one head."""
    return _plain() if name == "plain" else family(name)


@functools.cache
def _plain() -> VisionTransformer:
    return small_vit(depth=DEPTH, num_heads=1)


@functools.cache
def _traced(name: str, pruning: FixedPruning | None, opset: int, precision: Precision) -> onnx.ModelProto:
    vit = vit_named(name)
    outputs = ["logits"] if pruning is None else ["logits", "counts"]
    module = PrunableViT(vit, pruning, precision)
    return ir.serde.serialize_model(trace(module, tuple(vit.patch_embed.img_size), outputs, opset))


def unfinished(
    name: str = "plain",
    pruning: FixedPruning | None = PRUNING,
    opset: int = OPSET,
    precision: Precision = Precision.FP32,
) -> ir.Model:
    """A small model's graph as tracing leaves it; tracing, which is slow, is done once."""
    return ir.serde.deserialize_model(copied(_traced(name, pruning, opset, precision)))


@functools.cache
def finished(
    name: str = "plain",
    pruning: FixedPruning | None = PRUNING,
    opset: int = OPSET,
    operators: OperatorForm = OperatorForm.FUNCTION,
    precision: Precision = Precision.FP32,
) -> onnx.ModelProto:
    """A small model's graph as export writes it. Never to be changed: copy it first."""
    model = unfinished(name, pruning, opset, precision)
    return ir.serde.serialize_model(finish(model, FinishOptions(opset, operators, METADATA)))


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model that may be changed."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def kinds(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes of each operator the graph has, bodies of functions left out."""
    return Counter(node.op_type for node in model.graph.node)


def nodes(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    """The graph's nodes of one operator."""
    return [node for node in model.graph.node if node.op_type == kind]


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """The graph's weights and constants."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The graph's nodes and those of its functions."""
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def run(
    model: onnx.ModelProto, images: NDArray[np.float32], further: Mapping[str, int] = {}
) -> dict[str, NDArray[Any]]:
    """Runs a graph on ONNX Runtime; ``further`` are tensors, name to element type, to return beside its outputs."""
    model = copied(model)
    for name, element in further.items():
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, ["batch", None]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


SELECTION: Final = {"importance": onnx.TensorProto.FLOAT, "keep": onnx.TensorProto.INT32}
