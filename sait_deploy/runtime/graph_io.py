"""What runtimes that run an artifact's own graph hand to it and read of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.artifacts.pruning_info import PruningInfo
from sait_deploy.exporters.names import CU_SEQLENS, IMAGES


def with_selection(graph: onnx.ModelProto, pruning: PruningInfo) -> onnx.ModelProto:
    """Gives a graph importance and keep as further outputs, where it lacks them, in place, and returns it."""
    there = {output.name for output in graph.graph.output}
    for name, element in ((pruning.importance, onnx.TensorProto.FLOAT), (pruning.keep, onnx.TensorProto.INT32)):
        if name not in there:
            graph.graph.output.append(onnx.helper.make_tensor_value_info(name, element, ["B", None]))
    return graph


def feeds(images: NDArray[np.float32], point: BatchPoint | None) -> dict[str, NDArray[Any]]:
    """Returns a graph's inputs by name: images [B, C, H, W], and of an adaptive form the operating points."""
    if point is None:
        return {"images": images}
    return {"images": images, "mass": point.mass, "keep_limits": point.keep_limits}


def batch_of(given: Mapping[str, NDArray[Any]]) -> int:
    """Returns how many images the inputs of a graph are of: a whole graph, a stem or a trunk."""
    return len(given[IMAGES]) if IMAGES in given else len(given[CU_SEQLENS]) - 1
