"""The ONNX files that a builder is given: an artifact's graph, cut and lowered."""

from __future__ import annotations

import errno
import gc
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph import whole_graph_of
from sait_deploy.artifacts.manifest import TensorInfo
from sait_deploy.engine.manifest import EngineManifest
from sait_deploy.engine.profiles import PartName, parts_of
from sait_deploy.exporters.cut import cut
from sait_deploy.exporters.lower_tensorrt import fused_attention, lower_tensorrt
from sait_deploy.exporters.names import LowerOptions, QuantizedType, SelectionForm
from sait_deploy.exporters.tensorrt_limits import check_static


@dataclass(frozen=True, slots=True)
class LoweredPart:
    """One graph as a builder is given it.

    Attributes:
        path: its ONNX file.
        attention: how many attentions are one node.
        inputs: what it takes.
        outputs: what it returns.
    """

    path: Path
    attention: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def lowering_of(manifest: EngineManifest) -> LowerOptions:
    """Returns how the graphs of an engine were lowered."""
    selection = SelectionForm.FUNCTION if manifest.selection is None else manifest.selection
    return LowerOptions(
        manifest.precision, manifest.attention.form, selection, manifest.quantized or QuantizedType.INT8
    )


def lower_parts(artifact: Artifact, lowering: LowerOptions, folder: Path) -> dict[PartName, LoweredPart]:
    """Cuts an adaptive artifact, lowers its parts, and writes them as ONNX files.

    Of a pruned artifact, importance and keep become outputs too: what selection saw and decided can then be checked
    where an engine runs.

    Raises:
        ArtifactError: the graph cannot be cut or lowered.
    """
    model = whole_graph_of(artifact)
    _expose_selection(artifact, model)
    names = parts_of(artifact.manifest)
    if names == (PartName.MODEL,):
        graphs = {PartName.MODEL: model}
    else:
        parts = cut(model)
        graphs = {PartName.STEM: parts.stem, PartName.TRUNK: parts.trunk}
        del parts
    # Each graph is let go as soon as it is lowered: together they would be several times the model's size.
    del model
    lowered = {}
    for name in names:
        gc.collect()  # graphs refer to themselves, so counting references does not free them
        lowered[name] = _lowered(graphs.pop(name), name, lowering, folder)
    return lowered


def _expose_selection(artifact: Artifact, model: onnx.ModelProto) -> None:
    pruning, geometry = artifact.manifest.pruning, artifact.manifest.model.geometry
    batch = artifact.manifest.batch or "batch"
    if pruning is None:
        return
    there = {output.name for output in model.graph.output}
    for name, element, size in (
        (pruning.importance, onnx.TensorProto.FLOAT, geometry.patch_tokens),
        (pruning.keep, onnx.TensorProto.INT32, geometry.tokens),
    ):
        if name not in there:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, [batch, size]))


def _lowered(graph: onnx.ModelProto, name: PartName, lowering: LowerOptions, folder: Path) -> LoweredPart:
    lowered = lower_tensorrt(graph, lowering)
    check_static(lowered.graph, name)
    path = folder / f"{name}.onnx"
    # Beside the file, weights are written as they are; inside, protobuf would copy them twice.
    try:
        ir.save(lowered, path, external_data=f"{path.name}.data")
    except OSError as error:
        # Where a disk is full, NumPy says how much it wrote, and not why it was not all.
        number = error.errno or errno.ENOSPC
        raise OSError(number, os.strerror(number)) from error
    inputs, outputs = tuple(map(_tensor, lowered.graph.inputs)), tuple(map(_tensor, lowered.graph.outputs))
    return LoweredPart(path, fused_attention(lowered), inputs, outputs)


def _tensor(value: ir.Value) -> TensorInfo:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorInfo(value.name, value.dtype.numpy().name, shape)
