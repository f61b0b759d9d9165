"""The two static operators behind one call each, in every form they have, so that a test can hold them side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.inliner
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sait_deploy.plugins import OPERATORS
from sait_deploy.plugins.mass_token_select.reference import mass_token_select as select_in_numpy
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select as select_in_torch
from sait_deploy.plugins.pack_rows.reference import pack_rows as pack_in_numpy
from sait_deploy.plugins.pack_rows.torch_op import pack_rows as pack_in_torch
from sait_deploy.runtime.openvino import shared_core

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int32]
Select: TypeAlias = Callable[[Floats, Floats, Ints], tuple[Ints, Ints]]
Pack: TypeAlias = Callable[[Ints, Ints], tuple[Ints, Ints]]
Run: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]

DOMAIN = "ai.sait"
OPSET = 20


class Form(StrEnum):
    """A way to compute an operator."""

    NUMPY = "numpy"
    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    REFERENCE_EVALUATOR = "reference_evaluator"
    OPENVINO = "openvino"


ONNX_FORMS = (Form.ONNXRUNTIME, Form.REFERENCE_EVALUATOR, Form.OPENVINO)
COMPARED_FORMS = (Form.TORCH, *ONNX_FORMS)


def select_node(outputs: Sequence[str] = ("keep", "counts"), **attributes: int | str) -> onnx.NodeProto:
    """Returns a MassTokenSelect node that reads the model inputs of :func:`model_of`."""
    inputs = ["importance", "mass", "keep_limits"]
    node = helper.make_node("MassTokenSelect", inputs, list(outputs), domain=DOMAIN)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node


def pack_node() -> onnx.NodeProto:
    """Returns a PackRows node from ``keep`` and ``counts`` to ``rows`` and ``cu_seqlens``."""
    return helper.make_node("PackRows", ["keep", "counts"], ["rows", "cu_seqlens"], domain=DOMAIN)


def model_of(
    nodes: Sequence[onnx.NodeProto], opset: int = OPSET, functions: Sequence[onnx.FunctionProto] | None = None
) -> onnx.ModelProto:
    """Wraps nodes in a checked model with the operators' functions; every output of a node is one of the model."""
    shapes: dict[str, tuple[int, list[str | int | None]]] = {
        "importance": (TensorProto.FLOAT, ["B", "N"]),
        "mass": (TensorProto.FLOAT, ["B"]),
        "keep_limits": (TensorProto.INT32, ["B", 2]),
        "keep": (TensorProto.INT32, ["B", "L"]),
        "counts": (TensorProto.INT32, ["B"]),
    }
    produced = [name for node in nodes for name in node.output]
    consumed = dict.fromkeys(name for node in nodes for name in node.input)
    inputs = [helper.make_tensor_value_info(name, *shapes[name]) for name in consumed if name not in produced]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, [None] * (2 if "keep" in name else 1))
        for name in produced
    ]
    model = helper.make_model(
        helper.make_graph(list(nodes), "operators", inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)],
        functions=functions or [OPERATORS[name].function(opset) for name in ("MassTokenSelect", "PackRows")],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def runner(form: Form, model: onnx.ModelProto) -> Run:
    """Prepares a model for one of ``ONNX_FORMS``; the outputs come in the model's order."""
    if form is Form.ONNXRUNTIME:
        import onnxruntime

        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda feeds: list(session.run(None, dict(feeds)))
    if form is Form.REFERENCE_EVALUATOR:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(model)
        return lambda feeds: list(evaluator.run(None, dict(feeds)))
    if form is Form.OPENVINO:
        core = shared_core()
        inlined = onnx.inliner.inline_local_functions(model)
        # Left to itself, OpenVINO computes float32 in bfloat16 where the processor can.
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(inlined.SerializeToString()), "CPU", exact)
        return lambda feeds: list(compiled(dict(feeds)).values())
    raise ValueError(f"{form} does not run ONNX models")


@cache
def selector(form: Form, prefix: int) -> Select:
    """Returns MassTokenSelect in one form: (importance, mass, keep_limits) to (keep, counts)."""
    if form is Form.NUMPY:
        return lambda importance, mass, limits: select_in_numpy(importance, mass, limits, prefix)
    if form is Form.TORCH:

        def in_torch(importance: Floats, mass: Floats, limits: Ints) -> tuple[Ints, Ints]:
            tensors = (torch.from_numpy(array) for array in (importance, mass, limits))
            keep, counts = select_in_torch(*tensors, prefix)
            return keep.numpy(), counts.numpy()

        return in_torch
    run = runner(form, model_of([select_node(prefix=prefix)]))

    def in_onnx(importance: Floats, mass: Floats, limits: Ints) -> tuple[Ints, Ints]:
        keep, counts = run({"importance": importance, "mass": mass, "keep_limits": limits})
        return keep, counts

    return in_onnx


@cache
def packer(form: Form) -> Pack:
    """Returns PackRows in one form: (keep, counts) to (rows, cu_seqlens)."""
    if form is Form.NUMPY:
        return pack_in_numpy
    if form is Form.TORCH:

        def in_torch(keep: Ints, counts: Ints) -> tuple[Ints, Ints]:
            rows, cu_seqlens = pack_in_torch(torch.from_numpy(keep), torch.from_numpy(counts))
            return rows.numpy(), cu_seqlens.numpy()

        return in_torch
    run = runner(form, model_of([pack_node()]))

    def in_onnx(keep: Ints, counts: Ints) -> tuple[Ints, Ints]:
        rows, cu_seqlens = run({"keep": keep, "counts": counts})
        return rows, cu_seqlens

    return in_onnx


def assert_same_bits(name: str, got: NDArray[Any], want: Ints) -> None:
    """Fails, naming the first differing row, unless ``got`` is ``want`` in dtype, shape and every element."""
    for dtype in (got.dtype, want.dtype):
        assert dtype == np.int32, f"{name}: dtype {dtype}, not int32"
    assert got.shape == want.shape, f"{name}: shape {got.shape}, not {want.shape}"
    if not np.array_equal(got, want):
        differing = np.unique(np.argwhere(got != want)[:, 0])
        row = int(differing[0])
        raise AssertionError(f"{name}: {differing.size} rows differ, first {row}: {got[row]}, not {want[row]}")
