"""Where attention on packed rows is told its images: parsers of TensorRT differ in the inputs that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sait_deploy.exporters.names import LENGTHS_AT, PACKED_NODE

_ALSO_AT: Final = 4
"""Right behind the mask: what the parser of TensorRT for RTX 1.7.1 reads, which knows no inputs of a cache there."""


def moved_lengths(file: Path) -> Path | None:
    """Writes a graph beside it, attention on packed rows told its images at the other inputs.

    Args:
        file: an ONNX file, its weights beside it.

    Returns:
        The file written; None where the graph has no such attention.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    packed = [node for node in model.graph.node if node.op_type == PACKED_NODE]
    if not packed:
        return None
    for node in packed:
        del node.input[_ALSO_AT:LENGTHS_AT]
    place = file.with_name(f"{file.stem}-moved{file.suffix}")
    onnx.save(model, place)
    return place
