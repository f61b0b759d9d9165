"""Cut graphs of small models, made once, and the host between stem and trunk."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Outputs, Precision
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters.cut import Parts, cut
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.lower_tensorrt import lower_tensorrt
from sait_deploy.exporters.names import (
    CU_SEQLENS,
    GUARD,
    KEPT,
    LANES,
    ROWS,
    TOKENS,
    AttentionForm,
    EnginePrecision,
    LowerOptions,
    SelectionForm,
)
from sait_deploy.models.pruning import AdaptivePruning, Pruning
from tests.exporters.graphs import ADAPTIVE, OPSET, Opened, finished

SEAM = (TOKENS, ROWS, CU_SEQLENS, GUARD, KEPT, LANES)


def whole(
    name: str,
    pruning: Pruning | None = ADAPTIVE,
    precision: Precision = Precision.FP32,
    outputs: Outputs = Outputs.LOGITS,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A graph as export writes it. Never to be changed: copy it first."""
    model: onnx.ModelProto = finished(name, pruning, opset, OperatorForm.FUNCTION, precision, outputs)
    return model


@functools.cache
def parts_of(
    name: str,
    pruning: AdaptivePruning = ADAPTIVE,
    precision: Precision = Precision.FP32,
    outputs: Outputs = Outputs.LOGITS,
) -> Parts:
    """The same, cut. Never to be changed."""
    return cut(whole(name, pruning, precision, outputs))


def lowered(
    model: onnx.ModelProto,
    precision: EnginePrecision = EnginePrecision.FP16,
    attention: AttentionForm = AttentionForm.FUSED,
    selection: SelectionForm = SelectionForm.FUNCTION,
) -> onnx.ModelProto:
    """What the lowering makes of a graph."""
    made = lower_tensorrt(model, LowerOptions(precision, attention, selection))
    return ir.serde.serialize_model(made)


def bridged(seam: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What the host makes of a stem's outputs: ``kept`` and ``lanes`` beside them, of the lengths it reads."""
    lengths = seam[CU_SEQLENS]
    lanes = np.arange(np.diff(lengths).max(), dtype=np.int32)
    return {**seam, KEPT: seam[ROWS][: lengths[-1]], LANES: lanes}


class InParts:
    """Stem and trunk in ONNX Runtime, with the host between them."""

    def __init__(self, parts: Parts) -> None:
        self.stem, self.trunk = Opened(parts.stem), Opened(parts.trunk)

    def seam(self, images: NDArray[np.float32], point: BatchPoint) -> dict[str, NDArray[Any]]:
        """Runs the stem, and the host."""
        return bridged(self.stem(images, point))

    def rest(self, seam: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the trunk on what crosses the seam."""
        session = self.trunk.session
        names = [output.name for output in session.get_outputs()]
        found = session.run(names, {value.name: seam[value.name] for value in session.get_inputs()})
        return dict(zip(names, found, strict=True))

    def __call__(self, images: NDArray[np.float32], point: BatchPoint) -> dict[str, NDArray[Any]]:
        """Runs a batch: every output of the graph that was cut, by its name."""
        seam = self.seam(images, point)
        further = {name: value for name, value in seam.items() if name not in SEAM}
        return further | self.rest(seam)


def declared(value: onnx.ValueInfoProto) -> tuple[int, list[str | int]]:
    """Element type and shape that a graph states of an input or output."""
    kind = value.type.tensor_type
    return kind.elem_type, [extent.dim_param or extent.dim_value for extent in kind.shape.dim]
