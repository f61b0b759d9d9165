"""The packed form of an adaptive graph for ONNX Runtime CUDA: which rows are kept, and where each image begins.

One operator lists the kept rows; the number that it waits for is the only one that the host reads. Lanes are as wide as
the longest image that there can be: how long the batch's longest is would be a second number, and fused attention takes
its lengths from cu_seqlens, so that blocks of rows that an image has not cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from sait_deploy.plugins.mass_token_select.spec import SPEC as MASS_TOKEN_SELECT
from sait_deploy.plugins.pack_plan.spec import SPEC as PACK_PLAN
from sait_deploy.plugins.pack_rows.spec import SPEC as PACK_ROWS
from sait_deploy.plugins.read_extents.spec import SPEC as READ_EXTENTS
from sait_deploy.plugins.spec import DOMAIN

OFFSETS: Final = "sait_token_offset"
"""The lanes of real tokens, then those of padding, int32 [B, W]."""

_KEPT: Final = "sait_kept_rows"
_BEGINS: Final = "sait_begins"
_CONSTANTS: Final[dict[str, NDArray[Any]]] = {
    "sait_zero": np.array([0], dtype=np.int32),
    "sait_axis": np.array(0, dtype=np.int64),
    "sait_front": np.array([0], dtype=np.int64),
    "sait_last": np.array([-1], dtype=np.int64),
    "sait_lane_axis": np.array([1], dtype=np.int64),
    "sait_mask_axes": np.array([1, 2], dtype=np.int64),
}


@dataclass(frozen=True, slots=True)
class Packing:
    """What an adaptive graph's selection and seam are called.

    Attributes:
        keep, counts: what is selected, int32 [B, P+N] and [B].
        rows, cu_seqlens: the packing plan.
        kept, lanes: int32 [T] and [W].
        prefix: P.
        tokens: P+N.
    """

    keep: str
    counts: str
    rows: str
    cu_seqlens: str
    kept: str
    lanes: str
    prefix: int
    tokens: int


def packing_of(graph: onnx.GraphProto) -> Packing | None:
    """Returns the names of a graph's packing; None for one that packs nothing."""
    makers = {name: node for node in graph.node for name in node.output}
    extents = next((node for node in graph.node if _is(node, READ_EXTENTS.name)), None)
    if extents is None:
        return None
    pack = makers[extents.input[0]]
    select = makers[pack.input[0]]
    if not (_is(pack, PACK_ROWS.name) and _is(select, MASS_TOKEN_SELECT.name)):
        return None
    prefix = next(one.i for one in select.attribute if one.name == "prefix")
    tokens = tokens_of(graph, pack.input[0])
    (keep, counts), (rows, cu_seqlens), (kept, lanes) = pack.input, pack.output, extents.output
    return Packing(keep, counts, rows, cu_seqlens, kept, lanes, prefix, tokens)


def tokens_of(graph: onnx.GraphProto, keep: str) -> int:
    """Returns P+N, which traced graphs state."""
    (known,) = (value for value in graph.value_info if value.name == keep)
    tokens: int = known.type.tensor_type.shape.dim[1].dim_value
    return tokens


def packed_rows(
    nodes: Sequence[NodeProto], packing: Packing, constants: Mapping[str, NDArray[Any]], listed: bool
) -> Iterator[NodeProto]:
    """Yields a graph's nodes with its packing in few launches; some of them may have come to be of no use.

    Args:
        nodes: of the graph.
        packing: its names.
        constants: of the graph, by name.
        listed: whether to list the lanes of real tokens, for kernels that read them.
    """
    rows_read = any(packing.rows in node.input for node in nodes if not _is(node, READ_EXTENTS.name))
    shaped = {
        node.output[0]: node.input[1] for node in nodes if node.op_type == "Reshape" and packing.kept in node.input
    }
    slots = next((node.output[0] for node in nodes if _is(node, PACK_PLAN.name)), "")
    for node in nodes:
        if _is(node, PACK_ROWS.name) and node.output[0] == packing.rows:
            yield from [node] if rows_read else _starts(packing)
        elif _is(node, READ_EXTENTS.name):
            yield from _kept(packing)
        elif _is(node, PACK_PLAN.name):
            yield from _plan(node, packing)
            yield from _listed(packing) if listed else []
        elif node.op_type == "Cast" and node.input[0] in shaped and node.attribute[0].i == TensorProto.INT64:
            yield helper.make_node("Reshape", [_KEPT, shaped[node.input[0]]], list(node.output), name=node.name)
        elif node.op_type == "Slice" and node.input[0] == slots and _is_first_lane(node, constants):
            yield helper.make_node("Unsqueeze", [_BEGINS, "sait_lane_axis"], list(node.output), name=node.name)
        else:
            yield node


def packing_constants(packing: Packing) -> dict[str, NDArray[Any]]:
    """Returns what these nodes read, by name."""
    return {packing.lanes: np.arange(packing.tokens, dtype=np.int32), **_CONSTANTS}


def _is(node: NodeProto, operator: str) -> bool:
    matches: bool = node.domain == DOMAIN and node.op_type == operator
    return matches


def _is_first_lane(node: NodeProto, constants: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a Slice takes the first column, as readouts of a class token do: every image has a first row."""
    wanted = dict(zip(("starts", "ends", "axes", "steps"), (0, 1, 1, 1), strict=True))
    given = dict(zip(wanted, node.input[1:], strict=False))
    return len(given) >= 3 and all(
        name in constants and constants[name].tolist() == [wanted[place]] for place, name in given.items()
    )


def _starts(packing: Packing) -> Iterator[NodeProto]:
    yield helper.make_node("CumSum", [packing.counts, "sait_axis"], ["sait_ends"])
    yield helper.make_node("Concat", ["sait_zero", "sait_ends"], [packing.cu_seqlens], axis=0)


def _kept(packing: Packing) -> Iterator[NodeProto]:
    """Lists flat indices in ascending order, so images follow one another."""
    yield helper.make_node("Reshape", [packing.keep, "sait_last"], ["sait_flat_keep"])
    yield helper.make_node("NonZero", ["sait_flat_keep"], ["sait_kept_row"])
    yield helper.make_node("Reshape", ["sait_kept_row", "sait_last"], [_KEPT])
    yield helper.make_node("Cast", [_KEPT], [packing.kept], to=TensorProto.INT32)


def _plan(plan: NodeProto, packing: Packing) -> Iterator[NodeProto]:
    """Tells lanes their rows, and which are real. Nothing reads ``unslots``: fused attention goes back to rows."""
    slots, _, mask = plan.output
    yield helper.make_node("Slice", [packing.cu_seqlens, "sait_front", "sait_last"], [_BEGINS])
    yield helper.make_node("Unsqueeze", [_BEGINS, "sait_lane_axis"], ["sait_begin_column"])
    yield helper.make_node("Unsqueeze", [packing.counts, "sait_lane_axis"], ["sait_length_column"])
    yield helper.make_node("Less", [packing.lanes, "sait_length_column"], ["sait_real"])
    yield helper.make_node("Add", ["sait_begin_column", packing.lanes], ["sait_lane_rows"])
    yield helper.make_node("Where", ["sait_real", "sait_lane_rows", "sait_begin_column"], [slots])
    yield helper.make_node("Unsqueeze", ["sait_real", "sait_mask_axes"], [mask])


def _listed(packing: Packing) -> Iterator[NodeProto]:
    """Lists the lanes of real tokens, then those of padding, [B, W]: what PackRows makes of the mask."""
    yield helper.make_node("Cast", ["sait_real"], ["sait_real_lanes"], to=TensorProto.INT32)
    order = ["sait_lane_order", "sait_lane_starts"]
    yield helper.make_node(PACK_ROWS.name, ["sait_real_lanes", packing.counts], order, domain=DOMAIN)
    yield helper.make_node("Shape", ["sait_real_lanes"], ["sait_lane_shape"])
    yield helper.make_node("Reshape", ["sait_lane_order", "sait_lane_shape"], [OFFSETS])
