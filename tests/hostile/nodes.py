"""Graphs whose ``ai.sait`` nodes are not as their specs say, and graphs that run but cannot be lowered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
from onnx import ModelProto, helper

from sait_deploy.demo import IMAGES
from tests.hostile.case import Case, Door
from tests.hostile.graphs import DOORS, Edit, signed
from tests.hostile.world import ADAPTIVE

_PREDICT: Final = ("predict", "image.png", "--artifact", ADAPTIVE, "--runtime")
_LOWERED: Final = (
    *DOORS,
    Door("openvino", (*_PREDICT, "openvino"), ""),
    Door("cuda", (*_PREDICT, "onnxruntime-cuda"), ""),
    Door("build", ("build-engine", ADAPTIVE, "--builder", "tensorrt-rtx", "--target", "sm86"), ""),
    Door("quantize", ("quantize", ADAPTIVE, "--images", str(IMAGES), "--min-agreement", "0"), ""),
)
"""Doors that read more of a graph than whether it may be run."""

NODES: Final[dict[str, Edit]] = {}
"""Nodes unlike their specs, or unlike the manifest's model."""

UNLOWERED: Final[dict[str, Edit]] = {}
"""What leaves answers as they are, and what lowerings read away."""


def _node(function: Edit) -> Edit:
    NODES[function.__name__.strip("_").replace("_", "-")] = function
    return function


def _unlowered(function: Edit) -> Edit:
    UNLOWERED[function.__name__.strip("_").replace("_", "-")] = function
    return function


def _first(model: ModelProto, operator: str = "PackedAttention") -> onnx.NodeProto:
    return next(node for node in model.graph.node if (node.domain, node.op_type) == ("ai.sait", operator))


@_node
def _attribute_missing(model: ModelProto) -> None:
    del _first(model).attribute[0]


@_node
def _attribute_twice(model: ModelProto) -> None:
    _first(model).attribute.append(_first(model).attribute[0])


@_node
def _attribute_of_another_type(model: ModelProto) -> None:
    attribute = _first(model).attribute[0]
    attribute.CopyFrom(helper.make_attribute(attribute.name, "many"))


@_node
def _input_missing(model: ModelProto) -> None:
    del _first(model).input[-1]


@_node
def _input_empty(model: ModelProto) -> None:
    _first(model, "PackPlan").input[0] = ""


@_node
def _output_more(model: ModelProto) -> None:
    _first(model).output.append("more")


@_node
def _functions_missing(model: ModelProto) -> None:
    del model.functions[:]


for _operator, _name, _value in (
    ("PackedAttention", "num_heads", 0),
    ("PackedAttention", "num_heads", -(2**63)),
    ("PackedAttention", "num_heads", 2**62),
    ("MassTokenSelect", "prefix", -1),
    ("MassTokenSelect", "prefix", 2**62),
    ("PackedAttention", "num_heads", 7),
):

    def _valued(model: ModelProto, operator: str = _operator, name: str = _name, value: int = _value) -> None:
        next(one for one in _first(model, operator).attribute if one.name == name).i = value

    NODES[f"{_name.replace('_', '-')}-{_value}"] = _valued


@_unlowered
def _no_value_infos(model: ModelProto) -> None:
    del model.graph.value_info[:]


@_unlowered
def _no_names(model: ModelProto) -> None:
    for node in model.graph.node:
        node.name = ""


@_unlowered
def _one_name(model: ModelProto) -> None:
    for node in model.graph.node:
        node.name = "\x1b[31m"


@_unlowered
def _no_shapes(model: ModelProto) -> None:
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")


def cases() -> Iterator[Case]:
    """Yields every edit at the doors that read what it changes."""
    for name, edit in {**NODES, **UNLOWERED}.items():

        def change(folder: Path, edit: Edit = edit) -> None:
            model = onnx.load(str(folder / ADAPTIVE / "model.onnx"))
            edit(model)
            signed(folder, model)

        for door in DOORS if name in NODES else _LOWERED:
            quick = (name, door.name) in (("no-shapes", "cuda"), ("num-heads-0", "predict"))
            yield Case(f"node/{name}/{door.name}", "graph", door, change, name in UNLOWERED, quick)
