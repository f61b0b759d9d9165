"""Finished graphs of small models, made once, and what tests ask of them."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.manifest import COUNTS, FEATURES, Outputs, Precision
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters.finish import FinishOptions, OperatorForm, finish
from sait_deploy.exporters.names import KEEP_LIMITS, MASS
from sait_deploy.exporters.trace import TRACED_BATCH, trace
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning, Pruning
from sait_deploy.tokens import Score
from tests.shared import once_in_a_run
from tests.tiny import family, small_vit

OPSET: Final = 20
DEPTH: Final = 2
PRUNING: Final = FixedPruning(Score.MEAN, 1, 6)
ADAPTIVE: Final = AdaptivePruning(Score.MEAN, 1)
METADATA: Final = {"sait.id": "one", "sait.form": "density"}


@functools.cache
def vit_named(name: str) -> VisionTransformer:
    """A family's model, or a plain one; ``/2`` behind a name takes the first two blocks.

    Plain are ``plain``, two blocks of one head; ``small``, five of two heads; ``deep``, twelve of two heads;
    ``narrow``, three of eight heads, which have four channels each.
    """
    base, _, depth = name.partition("/")
    if depth:
        vit = copy.deepcopy(vit_named(base))
        vit.blocks = vit.blocks[: int(depth)]
        return vit
    if base == "plain":
        return small_vit(depth=DEPTH, num_heads=1)
    if base == "narrow":
        return small_vit(num_heads=8)
    depths = {"small": 5, "deep": 12}
    return small_vit(depth=depths[base]) if base in depths else family(base)


def before_last(name: str) -> AdaptivePruning:
    """Prunes in the last block but one, so that one block attends to packed tokens."""
    return AdaptivePruning(Score.MEAN, len(vit_named(name).blocks) - 2)


@once_in_a_run
def _traced(name: str, pruning: Pruning | None, opset: int, precision: Precision, outputs: Outputs) -> onnx.ModelProto:
    vit, further = vit_named(name), {}
    names = ["logits"] if outputs is Outputs.LOGITS else ["logits", FEATURES]
    if pruning is not None:
        names.append(COUNTS)
    if isinstance(pruning, AdaptivePruning):
        limits = torch.ones(TRACED_BATCH, 2, dtype=torch.int32)
        further = {MASS: torch.ones(TRACED_BATCH), KEEP_LIMITS: limits}
    module = PrunableViT(vit, pruning, precision, outputs)
    return ir.serde.serialize_model(trace(module, (3, *vit.patch_embed.img_size), names, opset, further))


def unfinished(
    name: str = "plain",
    pruning: Pruning | None = PRUNING,
    opset: int = OPSET,
    precision: Precision = Precision.FP32,
    outputs: Outputs = Outputs.LOGITS,
) -> ir.Model:
    """A small model's graph as tracing leaves it; tracing, which is slow, is done once."""
    return ir.serde.deserialize_model(copied(_traced(name, pruning, opset, precision, outputs)))


@once_in_a_run
def finished(
    name: str = "plain",
    pruning: Pruning | None = PRUNING,
    opset: int = OPSET,
    operators: OperatorForm = OperatorForm.FUNCTION,
    precision: Precision = Precision.FP32,
    outputs: Outputs = Outputs.LOGITS,
) -> onnx.ModelProto:
    """A small model's graph as export writes it. Never to be changed: copy it first."""
    model = unfinished(name, pruning, opset, precision, outputs)
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


def with_outputs(model: onnx.ModelProto, further: Mapping[str, int]) -> onnx.ModelProto:
    """Returns a copy that returns these tensors, name to element type, too."""
    model = copied(model)
    for name, element in further.items():
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
    return model


class Opened:
    """A graph in ONNX Runtime on one thread; ``further`` are tensors, name to element type, to return too."""

    def __init__(self, model: onnx.ModelProto, further: Mapping[str, int] = {}) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        data = with_outputs(model, further).SerializeToString()
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: NDArray[np.float32], point: BatchPoint | None = None) -> dict[str, NDArray[Any]]:
        """Runs a batch: every output by its name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feeds(images, point)), strict=True))


def feeds(images: NDArray[np.float32], point: BatchPoint | None) -> dict[str, NDArray[Any]]:
    """Inputs by their names."""
    return {"images": images} | ({} if point is None else {MASS: point.mass, KEEP_LIMITS: point.keep_limits})


def run(
    model: onnx.ModelProto,
    images: NDArray[np.float32],
    further: Mapping[str, int] = {},
    point: BatchPoint | None = None,
) -> dict[str, NDArray[Any]]:
    """Opens a graph and runs one batch."""
    return Opened(model, further)(images, point)


def optimised(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime makes of it on a CPU: functions inlined, equal nodes merged, operators fused."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


SELECTION: Final = {"importance": onnx.TensorProto.FLOAT, "keep": onnx.TensorProto.INT32}


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor, as ONNX infers it from the operators and not as the graph says."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def casts(model: onnx.ModelProto) -> Counter[tuple[str, int]]:
    """How often each tensor is cast to each type."""
    return Counter((node.input[0], node.attribute[0].i) for node in nodes(model, "Cast"))
