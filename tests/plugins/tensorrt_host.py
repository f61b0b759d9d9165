"""Stands in for TensorRT's builder: asks NVIDIA's own Python front end for plugins as the builder does.

    PYTHONPATH=FRONTEND/py:CHECKOUT LD_LIBRARY_PATH=FRONTEND/lib python tensorrt_host.py < questions.json

The front end is real: its checks of the definitions, its registry, its creator, its plugin objects. What stands in is
what the library would do with shapes: symbolic expressions are built by an expression builder written here, and
evaluated for concrete shapes. One JSON answer per question says what the driver would be given.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorrt as trt

Extents: TypeAlias = Sequence[Sequence[int]]
"""A concrete shape for each input."""

INTERFACES = {
    "MassTokenSelect": (("FLOAT", "FLOAT", "INT32"), ("INT32", "INT32")),
    "PackRows": (("INT32", "INT32"), ("INT32", "INT32")),
}


class Expression:
    """What ``IDimensionExpr`` is to a plugin: a constant, or something that depends on the inputs' shapes."""

    def __init__(self, value: int | None, evaluate: Callable[[Extents], int]) -> None:
        self.value, self.evaluate = value, evaluate

    def is_constant(self) -> bool:
        return self.value is not None

    def get_constant_value(self) -> int:
        assert self.value is not None
        return self.value


class Expressions(list[Expression | None]):
    """What ``DimsExprs`` is to a plugin."""

    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class SymbolicArgument:
    """What ``ISymExpr`` is to a plugin."""

    type: Any
    dtype: Any
    expr: Expression


class Builder:
    """What ``IExprBuilder`` is to a plugin; like TensorRT's, it folds constants."""

    def constant(self, value: int) -> Expression:
        return Expression(value, lambda _: value)

    def operation(self, kind: Any, left: Expression, right: Expression) -> Expression:
        names = trt.DimensionOperation
        functions: dict[Any, Callable[[int, int], int]] = {
            names.SUM: operator.add, names.SUB: operator.sub, names.PROD: operator.mul, names.MAX: max, names.MIN: min,
            names.FLOOR_DIV: operator.floordiv, names.CEIL_DIV: lambda a, b: -(-a // b),
        }  # fmt: skip
        apply = functions[kind]
        if left.value is not None and right.value is not None:
            return self.constant(apply(left.value, right.value))
        return Expression(None, lambda extents: apply(left.evaluate(extents), right.evaluate(extents)))


class SymbolicArguments(list[Any]):
    """What ``ISymExprs`` is to a plugin: told its length first."""

    def __setattr__(self, name: str, value: int) -> None:
        assert name == "nbSymExprs"
        self[:] = [None] * value


class LaunchParameters:
    """What ``IKernelLaunchParams`` is to a plugin: the front end's expressions for the grid, the block and so on."""


# Before tensorrt.plugin is imported: it derives from one of these.
trt.IDimensionExpr, trt.DimsExprs, trt.ISymExpr = Expression, Expressions, SymbolicArgument


@dataclass(frozen=True)
class Question:
    """A node to build an engine for, and the shapes to run it with; an extent below 0 varies."""

    name: str
    attributes: dict[str, int]
    shapes: Extents
    run_with: Sequence[Extents]


def input_expressions(builder: Builder, shapes: Extents) -> list[list[Expression]]:
    def extent(tensor: int, axis: int, size: int) -> Expression:
        return builder.constant(size) if size >= 0 else Expression(None, lambda extents: extents[tensor][axis])

    return [[extent(i, axis, size) for axis, size in enumerate(shape)] for i, shape in enumerate(shapes)]


def tensor(kind: str, shape: Sequence[int]) -> Any:
    """A linear tensor's DynamicPluginTensorDesc."""
    found = trt.DynamicPluginTensorDesc()
    desc = trt.PluginTensorDesc()
    desc.dims, desc.type, desc.format = trt.Dims(list(shape)), getattr(trt.DataType, kind), trt.TensorFormat.LINEAR
    found.desc = desc
    for bound, size in (("min", 1), ("opt", 8), ("max", 64)):
        setattr(found, bound, trt.Dims([size if extent < 0 else extent for extent in shape]))
    return found


def create(question: Question) -> Any:
    """Creates the plugin through the registry, with the fields that the parser makes of a node's attributes."""
    creator = trt.get_plugin_registry().get_creator(question.name, "1", "ai_sait")
    assert creator is not None, f"no creator of {question.name}"
    taken = {field.name: field.type for field in creator.field_names}
    assert taken == dict.fromkeys(question.attributes, trt.PluginFieldType.INT64), taken
    fields = [trt.PluginField(name, np.array([value]), taken[name]) for name, value in question.attributes.items()]
    plugin = creator.create_plugin(
        question.name, "ai_sait", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )  # fmt: skip
    assert (plugin.plugin_name, plugin.plugin_namespace, plugin.plugin_version) == (question.name, "ai_sait", "1")
    return plugin


def ask(question: Question) -> dict[str, Any]:
    """Puts the builder's calls to a plugin, in the builder's order."""
    inputs, outputs = INTERFACES[question.name]
    builder, plugin = Builder(), create(question)
    kinds = plugin.get_output_data_types([getattr(trt.DataType, kind) for kind in inputs], [*map(len, question.shapes)])
    shapes = plugin.get_output_shapes(input_expressions(builder, question.shapes), [], builder)
    fixed = [[-1 if e.value is None else e.value for e in shape] for shape in shapes]
    tensors = [tensor(*pair) for pair in zip((*inputs, *outputs), (*question.shapes, *fixed), strict=True)]
    combinations = plugin.get_supported_format_combinations(tensors, len(inputs))
    plugin.configure_plugin(tensors[: len(inputs)], tensors[len(inputs) :])
    assert plugin.get_valid_tactics() == []
    plugin.set_tactic(0)
    launch, arguments = LaunchParameters(), SymbolicArguments()
    plugin.get_launch_params(
        input_expressions(builder, question.shapes), tensors, len(inputs), launch, arguments, builder
    )
    described = [each.desc for each in tensors]
    entry, ptx = plugin.clone().get_kernel(described[: len(inputs)], described[len(inputs) :])
    assert all(argument.type == trt.PluginArgType.INT for argument in arguments)
    return {
        "outputs": [kind.name for kind in kinds],
        "taken": [[each.type.name, each.format.name] for each in combinations],
        "entry": entry,
        "ptx": ptx.decode(),
        "kinds": [argument.dtype.name for argument in arguments],
        "runs": [concrete(extents, shapes, launch, arguments) for extents in question.run_with],
    }


def concrete(extents: Extents, shapes: Any, launch: Any, arguments: Any) -> dict[str, Any]:
    """Says what the driver is given for concrete shapes: TensorRT passes inputs, then expressions, then outputs."""

    def value(of: Any) -> int:
        return int(of.expr.evaluate(extents))

    return {
        "shapes": [[expression.evaluate(extents) for expression in shape] for shape in shapes],
        "grid": [value(launch.grid_x), value(launch.grid_y), value(launch.grid_z)],
        "block": [value(launch.block_x), value(launch.block_y), value(launch.block_z)],
        "shared": value(launch.shared_mem),
        "arguments": [
            *(f"input {index}" for index in range(len(extents))),
            *(value(argument) for argument in arguments),
            *(f"output {index}" for index in range(len(shapes))),
        ],
    }


def main() -> None:
    from sait_deploy.errors import SaitError
    from sait_deploy.plugins.mass_token_select import tensorrt_plugin as mass_token_select
    from sait_deploy.plugins.pack_rows import tensorrt_plugin as pack_rows

    asked = json.load(sys.stdin)
    for sm in asked["register"]:
        mass_token_select.register(sm)
        pack_rows.register(sm)
    answers: list[dict[str, Any]] = []
    for question in asked["questions"]:
        try:
            answers.append(ask(Question(**question)))
        except SaitError as error:
            answers.append({"error": error.message, "hint": error.hint})
    print(json.dumps({"version": trt.__version__, "answers": answers}))


if __name__ == "__main__":
    main()
