"""Turns an operator's spec and its kernel into a TensorRT plugin that is compiled into the engine.

``tensorrt.plugin`` (10.9 and later) knows a plugin by three functions, whose signatures it inspects: ``register`` says
what comes out, ``autotune`` which types and layouts are taken, ``aot_impl`` hands over PTX. The engine then carries the
kernel: running it needs no Python and no plugin library. An ahead-of-time plugin is exactly one kernel; it is passed
the inputs, then 32-bit expressions of the shapes, then the outputs; it has no workspace; its attributes are not kept in
the engine. What is raised in here while the builder asks, it prints and swallows: the build then gives no engine.
All of it is read in NVIDIA's own sources: ``python/packaging/bindings_wheel/tensorrt/plugin`` and ``python/src/infer/
pyPlugin.cpp`` of https://github.com/NVIDIA/TensorRT at 10.9, 10.16 and 11.1, and the wheel of 11.4.

An attribute is declared as a NumPy array, not as ``int``: up to 10.16 the front end makes an ``int`` of the parser's
one-element array, which NumPy 2.4 and later refuse; an array it converts by ``astype``, whatever integer type came.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from sait_deploy.errors import BuilderUnavailable, InvalidArgument, MissingDependency
from sait_deploy.plugins.ptx import CompiledKernel
from sait_deploy.plugins.spec import TENSORRT_NAMESPACE, ElementType, OperatorSpec

PLUGIN_VERSION: Final = "1"
"""``plugin_version`` of every plugin defined through ``tensorrt.plugin``."""

Expression: TypeAlias = Any
"""A ``tensorrt.plugin.ShapeExpr``."""

Described: TypeAlias = Sequence[Any]
"""One ``tensorrt.plugin.TensorDesc`` for each tensor."""

Shapes: TypeAlias = Callable[[Described, Mapping[str, int]], Sequence[tuple[Expression, ...]]]
"""(inputs, attributes) to the shape of each output."""

_TYPE_NAMES: Final = {ElementType.FLOAT32: "FP32", ElementType.INT32: "INT32"}
_DATA_TYPES: Final = {ElementType.FLOAT32: "float32", ElementType.INT32: "int32"}


@dataclass(frozen=True, slots=True)
class Launch:
    """How a kernel is started for shapes that are known later.

    Attributes:
        grid: blocks of threads, all in x.
        sizes: int32 arguments between the inputs and the outputs.
    """

    kernel: CompiledKernel
    grid: Expression
    sizes: Sequence[Expression]


Launches: TypeAlias = Callable[[Described, Described], Launch]
"""(inputs, outputs) to the launch."""


def node_attributes() -> dict[str, str | int]:
    """Returns the attributes by which TensorRT's parser takes a node for the plugin of its name, not for a function.

    ``aot`` asks for the kernel in the engine, whatever the network's flags prefer.
    """
    return {"plugin_namespace": TENSORRT_NAMESPACE, "plugin_version": PLUGIN_VERSION, "aot": 1}


def fixed_extent(tensor: Any, axis: int, meaning: str) -> int:
    """Returns an extent that has to be known when the engine is built.

    Raises:
        InvalidArgument: it varies.
    """
    expression = tensor.shape_expr[axis]
    extent = int(expression.constant_value() if expression.is_constant else tensor.shape[axis])
    if extent < 0:
        raise InvalidArgument(
            f"the number of {meaning} varies between the shapes that the engine is built for",
            "fix it in the ONNX file: the kernel is compiled for one number; only the batch may vary",
        )
    return extent


def define_plugin(spec: OperatorSpec, shapes: Shapes, launches: Launches) -> None:
    """Defines a plugin in this process; one that is there is kept, but for its kernel, which is replaced.

    Raises:
        MissingDependency: TensorRT is not installed.
        BuilderUnavailable: it is older than 10.9.
    """
    try:
        import tensorrt
        import tensorrt.plugin as trtp
    except ModuleNotFoundError as error:
        raise MissingDependency("tensorrt", "defining TensorRT plugins", "tensorrt") from error
    if not hasattr(trtp, "aot_impl"):
        raise BuilderUnavailable(
            f"TensorRT {tensorrt.__version__} cannot put a kernel into an engine", "use TensorRT 10.9 or newer"
        )
    kinds = [getattr(tensorrt, _DATA_TYPES[tensor.element_type]) for tensor in spec.outputs]
    types = ", ".join(_TYPE_NAMES[tensor.element_type] for tensor in (*spec.inputs, *spec.outputs))

    def describe(*inputs: Any, **attributes: npt.NDArray[np.int64]) -> Any:
        extents = shapes(inputs, {name: int(value.item()) for name, value in attributes.items()})
        return tuple(trtp.from_shape_expr(shape, kind) for shape, kind in zip(extents, kinds, strict=True))

    def combine(*_: Any) -> Any:
        return [trtp.AutoTuneCombination(types, "LINEAR")]

    def implement(*arguments: Any) -> Any:
        return _implementation(trtp, launches(arguments[: len(spec.inputs)], arguments[-2]))

    outputs = tuple.__class_getitem__((trtp.TensorDesc,) * len(spec.outputs))
    code = tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]
    tensors = dict.fromkeys((tensor.name for tensor in spec.inputs), trtp.TensorDesc)
    taken = tensors | {attribute.name: npt.NDArray[np.int64] for attribute in spec.attributes}
    name = f"{TENSORRT_NAMESPACE}::{spec.name}"
    if not hasattr(getattr(trtp.op, TENSORRT_NAMESPACE, None), spec.name):
        trtp.register(name)(_signed(describe, taken, outputs))
    trtp.autotune(name)(_signed(combine, taken | {"outputs": outputs}, list[trtp.AutoTuneCombination]))
    trtp.aot_impl(name)(_signed(implement, taken | {"outputs": outputs, "tactic": int}, code))


def _implementation(trtp: Any, launch: Launch) -> tuple[str, str, Any, Any]:
    kernel = launch.kernel
    how = trtp.KernelLaunchParams(grid_x=launch.grid, block_x=kernel.threads, shared_mem=kernel.shared_bytes)
    sizes = trtp.SymIntExprs.from_tuple(tuple(trtp.SymInt32(size) for size in launch.sizes))
    return kernel.entry, kernel.ptx, how, sizes


def _signed(function: Callable[..., Any], taken: Mapping[str, Any], given: Any) -> Callable[..., Any]:
    """Gives a function the signature that TensorRT reads off it."""
    named = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
        for name, kind in taken.items()
    ]
    function.__signature__ = inspect.Signature(named, return_annotation=given)  # type: ignore[attr-defined]
    return function
