"""What TensorRT cannot build, found before the build starts."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from sait_deploy.errors import ArtifactError

_SHAPED_BY_DATA: Final = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})
_SHAPES_READ: Final = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
"""Inputs that say how large an output is."""

_SIZES: Final = frozenset({"Shape", "Size"})


def check_static(graph: ir.Graph, part: str) -> None:
    """Refuses a graph in which a shape depends on what a tensor holds, and not on how large it is.

    Args:
        graph: lowered, nodes in topological order.
        part: what it is called in the error.

    Raises:
        ArtifactError: names the node.
    """
    data = set(graph.inputs)
    for node in graph:
        sized = [node.inputs[index] for index in _SHAPES_READ.get(node.op_type, ()) if index < len(node.inputs)]
        if node.op_type in _SHAPED_BY_DATA or any(value in data for value in sized):
            raise ArtifactError(
                f"{node.op_type} {node.name!r} in the {part} makes a shape from data, which an engine cannot hold",
                "export the model with this version of sait-deploy",
            )
        if node.op_type not in _SIZES and any(value in data for value in node.inputs):
            data.update(node.outputs)
