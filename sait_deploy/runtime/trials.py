"""A small graph with a known answer, which ``doctor`` has runtimes run: the selection alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sait_deploy.plugins import OPERATORS
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.plugins.mass_token_select.spec import SPEC
from sait_deploy.plugins.spec import DOMAIN, DOMAIN_VERSION, ElementType

Run: TypeAlias = Callable[[bytes, Mapping[str, NDArray[Any]]], Sequence[NDArray[Any]]]
"""(ONNX model, its inputs by name) to its outputs in order."""

_OPSET: Final = 20
_PREFIX: Final = 1
_TYPES: Final = {ElementType.FLOAT32: TensorProto.FLOAT, ElementType.INT32: TensorProto.INT32}


def try_selection(run: Run) -> None:
    """Has a runtime select tokens, and compares what it keeps with the reference.

    Raises:
        RuntimeError: the runtime keeps other tokens.
    """
    importance = np.random.default_rng(0).dirichlet(np.ones(32), size=4).astype(np.float32)
    mass, limits = np.full(4, 0.8, np.float32), np.tile(np.array([[1, 32]], np.int32), (4, 1))
    names = (tensor.name for tensor in SPEC.inputs)
    keep, _ = run(_selection().SerializeToString(), dict(zip(names, (importance, mass, limits), strict=True)))
    if not np.array_equal(keep, mass_token_select(importance, mass, limits, _PREFIX)[0]):
        raise RuntimeError("the selection differs from the reference")


def try_convolution(run: Run) -> None:
    """Has a runtime embed patches of ones.

    Raises:
        RuntimeError: an answer is wrong.
    """
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    patches = helper.make_tensor_value_info("patches", TensorProto.FLOAT, [1, 2, 2, 2])
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2, 3, 4, 4], np.ones(96, np.float32))
    node = helper.make_node("Conv", ["images", "weight"], ["patches"], strides=[4, 4])
    graph = helper.make_graph([node], "trial", [images], [patches], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    (found,) = run(model.SerializeToString(), {"images": np.ones((1, 3, 8, 8), np.float32)})
    if not np.array_equal(found, np.full((1, 2, 2, 2), 48, np.float32)):
        raise RuntimeError("a convolution is wrong")


def _selection() -> onnx.ModelProto:
    inputs, outputs = (
        [helper.make_tensor_value_info(x.name, _TYPES[x.element_type], [None] * len(x.shape)) for x in tensors]
        for tensors in (SPEC.inputs, SPEC.outputs)
    )
    names = [x.name for x in inputs], [x.name for x in outputs]
    node = helper.make_node(SPEC.name, *names, domain=DOMAIN, prefix=_PREFIX)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    graph = helper.make_graph([node], "trial", inputs, outputs)
    return helper.make_model(
        graph, opset_imports=opsets, functions=[OPERATORS[SPEC.name].function(_OPSET)], ir_version=10
    )
