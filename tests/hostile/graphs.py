"""Graphs that no export makes, each in an artifact whose hashes fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper

from sait_deploy.artifacts.digests import sha256_of
from tests.hostile.case import Case, Door
from tests.hostile.world import ADAPTIVE

Edit: TypeAlias = Callable[[ModelProto], None]

DOORS: Final = (
    Door("inspect", ("inspect", ADAPTIVE), f"{ADAPTIVE}/model.onnx"),
    Door("predict", ("predict", "image.png", "--artifact", ADAPTIVE), f"{ADAPTIVE}/model.onnx"),
)
EDITS: Final[dict[str, Edit]] = {}


def _edit(function: Edit) -> Edit:
    EDITS[function.__name__.strip("_").replace("_", "-")] = function
    return function


def _external(**entries: str) -> Edit:
    def edit(model: ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    return edit


for _name, _entries in {
    "offset-negative": {"offset": "-1"},
    "offset-text": {"offset": "abc"},
    "offset-large": {"offset": str(10**12)},
    "offset-larger": {"offset": "9" * 5000},
    "length-negative": {"length": "-5"},
    "length-text": {"length": "1e9"},
    "length-large": {"length": str(10**15)},
    "above": {"location": "../dense/golden.npz"},
    "absolute": {"location": "/etc/passwd"},
    "manifest": {"location": "manifest.json"},
    "nowhere": {"location": ""},
}.items():
    EDITS[f"external-{_name}"] = _external(**{"location": "golden.npz", **_entries})

for _number in (0, 8, 14, 15, 99, -1):

    def _typed(model: ModelProto, number: int = _number) -> None:
        model.graph.initializer[0].data_type = number

    EDITS[f"type-{_number}"] = _typed

for _name, _sizes in {"negative": [-1], "large": [10**6, 10**6], "largest": [2**62, 4], "many": [1] * 10_000}.items():

    def _sized(model: ModelProto, sizes: list[int] = _sizes) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(sizes)

    EDITS[f"sizes-{_name}"] = _sized

for _domain, _operator in (
    ("", "RandomNormal"),
    ("", "NoSuchOperator"),
    ("", "SequenceConstruct"),
    ("ai.sait", "NoSuchOperator"),
    ("com.microsoft", "Attention"),
    ("com.evil", "Run"),
    ("ai.onnx.ml", "TreeEnsembleClassifier"),
):

    def _added(model: ModelProto, domain: str = _domain, operator: str = _operator) -> None:
        model.graph.node.append(helper.make_node(operator, [], ["extra"], domain=domain))
        if domain and domain not in {entry.domain for entry in model.opset_import}:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    EDITS[f"operator-{_domain}-{_operator}"] = _added


@_edit
def _loop(model: ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"])],
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", TensorProto.INT64), ("going", TensorProto.BOOL))],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, [])],
    )
    for name, value in (("trips", np.int64(2**62)), ("go", np.bool_(True))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    model.graph.node.append(helper.make_node("Loop", ["trips", "go"], [], body=body))


@_edit
def _function_bomb(model: ModelProto) -> None:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("bomb", 1)]
    for level in range(30):
        operator, domain = ("Identity", "") if level == 0 else (f"f{level - 1}", "bomb")
        nodes = [
            helper.make_node(operator, ["x"], ["a"], domain=domain),
            helper.make_node(operator, ["a"], ["y"], domain=domain),
        ]
        model.functions.append(helper.make_function("bomb", f"f{level}", ["x"], ["y"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("bomb", 1))
    model.graph.node.append(helper.make_node("f29", ["images"], ["blown"], domain="bomb"))


@_edit
def _functions_in_a_circle(model: ModelProto) -> None:
    opsets = [helper.make_opsetid("bomb", 1)]
    for name, other in (("f", "g"), ("g", "f")):
        node = helper.make_node(other, ["x"], ["y"], domain="bomb")
        model.functions.append(helper.make_function("bomb", name, ["x"], ["y"], [node], opsets))
    model.opset_import.append(helper.make_opsetid("bomb", 1))
    model.graph.node.append(helper.make_node("f", ["images"], ["blown"], domain="bomb"))


@_edit
def _function_twice(model: ModelProto) -> None:
    model.functions.append(model.functions[0])


@_edit
def _large_tensor(model: ModelProto) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([10**6, 10**6]), "large"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["large"], ["zeros"]))


@_edit
def _value_twice(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["images"], ["logits"]))


@_edit
def _weight_twice(model: ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


@_edit
def _unknown_value(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["nothing"], ["extra"]))


@_edit
def _no_nodes(model: ModelProto) -> None:
    del model.graph.node[:]


@_edit
def _no_outputs(model: ModelProto) -> None:
    del model.graph.output[:]


@_edit
def _outputs_swapped(model: ModelProto) -> None:
    first, second = model.graph.output[0].name, model.graph.output[1].name
    model.graph.output[0].name, model.graph.output[1].name = second, first


@_edit
def _output_of_another_type(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


@_edit
def _output_sequence(model: ModelProto) -> None:
    model.graph.output[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )


@_edit
def _input_of_another_size(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 48


@_edit
def _input_more(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def _instead(model: ModelProto, value: str, nodes: list[onnx.NodeProto], *weights: TensorProto) -> None:
    """Makes an output of what was that output."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == value:
                    names[place] = "before"
    model.graph.initializer.extend(weights)
    model.graph.node.extend(nodes)


@_edit
def _logits_of_another_shape(model: ModelProto) -> None:
    _instead(model, "logits", [helper.make_node("Concat", ["before", "before"], ["logits"], axis=1)])


@_edit
def _logits_of_another_batch(model: ModelProto) -> None:
    _instead(model, "logits", [helper.make_node("Concat", ["before", "before"], ["logits"], axis=0)])


@_edit
def _counts_too_many(model: ModelProto) -> None:
    large = onnx.numpy_helper.from_array(np.array([10**6], np.int32), "large")
    _instead(model, "counts", [helper.make_node("Add", ["before", "large"], ["counts"])], large)


@_edit
def _logits_not_numbers(model: ModelProto) -> None:
    nan = onnx.numpy_helper.from_array(np.array([np.nan], np.float32), "nan")
    _instead(model, "logits", [helper.make_node("Add", ["before", "nan"], ["logits"])], nan)


@_edit
def _opset_none(model: ModelProto) -> None:
    del model.opset_import[:]


@_edit
def _opset_negative(model: ModelProto) -> None:
    model.opset_import[0].version = -1


@_edit
def _opset_large(model: ModelProto) -> None:
    model.opset_import[0].version = 2**40


@_edit
def _sparse_weight(model: ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.extend([10**9, 10**9])


@_edit
def _training(model: ModelProto) -> None:
    model.training_info.add()


@_edit
def _bytes_too_few(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-1]


@_edit
def _attribute_of_another_kind(model: ModelProto) -> None:
    node = next(node for node in model.graph.node if node.attribute)
    node.attribute[0].type = AttributeProto.STRING


ONLY_RUN: Final = ("logits-of-another-shape", "logits-of-another-batch", "counts-too-many", "logits-not-numbers")
"""What only an answer shows."""


def signed(folder: Path, model: ModelProto) -> None:
    """Puts a graph into the adaptive artifact, whose hash fits then."""
    place, manifest = folder / ADAPTIVE / "model.onnx", folder / ADAPTIVE / "manifest.json"
    place.write_bytes(model.SerializeToString())
    data = json.loads(manifest.read_text(encoding="utf-8"))
    data["files"]["model.onnx"] = sha256_of(place)
    manifest.write_text(json.dumps(data), encoding="utf-8")


def cases() -> Iterator[Case]:
    """Yields every edit at every door."""
    for name, edit in EDITS.items():

        def change(folder: Path, edit: Edit = edit) -> None:
            model = onnx.load(str(folder / ADAPTIVE / "model.onnx"))
            edit(model)
            signed(folder, model)

        for door in DOORS:
            harmless = door.name == "inspect" and name in ONLY_RUN
            quick = door.name == "predict" and name in (*ONLY_RUN, "loop", "function-bomb", "external-offset-negative")
            yield Case(f"graph/{name}/{door.name}", "graph", door, change, harmless, quick)
