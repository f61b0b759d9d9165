"""A graph of opset 18 → the same graph at opset 17, where its operators allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import onnx.defs
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sait_deploy.errors import InvalidArgument

TRACED: Final = 18
"""The oldest opset that torch's exporter writes."""

OLDEST: Final = 17
"""The first with ``LayerNormalization``, which models would otherwise be several times as many nodes without."""

_IR_VERSION: Final = 8
"""The ONNX IR version that came with opset 17."""

_NO_NEWER_REDUCTION: Final = ("none", "add", "mul")


def lower_to_oldest(model: ir.Model) -> None:
    """Rewrites a graph and its functions, in place, from opset 18 to 17.

    Raises:
        InvalidArgument: an operator does what opset 17 has no form of; the message names it.
    """
    graphs: list[tuple[Iterable[ir.Node], dict[str, int]]] = [(model.graph, model.opset_imports)]
    graphs += [(function, function.opset_imports) for function in model.functions.values()]
    for nodes, imports in graphs:
        for node in nodes:
            if not node.domain:
                _lower(node)
        imports[""] = OLDEST
    model.ir_version = _IR_VERSION
    RemoveUnusedNodesPass()(model)  # axes that became attributes


def _lower(node: ir.Node) -> None:
    newest = onnx.defs.get_schema(node.op_type, TRACED).since_version
    if newest < TRACED:
        return
    if node.op_type.startswith("Reduce"):
        _axes_as_attribute(node)
    elif node.op_type == "Split":
        node.attributes.pop("num_outputs", None)  # the outputs say it
    elif not _UNCHANGED.get(node.op_type, _never)(node):
        raise _refused(node)


def _axes_as_attribute(node: ir.Node) -> None:
    noop = node.attributes.pop("noop_with_empty_axes", None)
    if len(node.inputs) < 2 or node.inputs[1] is None:
        if noop is not None and noop.as_int():
            raise _refused(node)
        return
    axes = ir.convenience.get_const_tensor(node.inputs[1])
    if axes is None:
        raise _refused(node)
    node.attributes.add(ir.AttrInt64s("axes", axes.numpy().tolist()))
    node.resize_inputs(1)


def _refused(node: ir.Node) -> InvalidArgument:
    return InvalidArgument(
        f"opset {OLDEST} has no form of the {node.op_type} that the model uses", f"give --opset {TRACED} or above"
    )


def _never(node: ir.Node) -> bool:
    return False


def _reduces_as_before(node: ir.Node) -> bool:
    reduction = node.attributes.get("reduction")
    return reduction is None or reduction.as_string() in _NO_NEWER_REDUCTION


def _pads_as_before(node: ir.Node) -> bool:
    return len(node.inputs) < 4 or node.inputs[3] is None


_UNCHANGED: Final[dict[str, Callable[[ir.Node], bool]]] = {
    "Pad": _pads_as_before,
    "ScatterElements": _reduces_as_before,
    "ScatterND": _reduces_as_before,
}
"""Operators that opset 18 gave more to do, and whether a node does no more than before."""
