"""The four operators of a packed batch in every form they have, and batches to try them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from sait_deploy.plugins import OPERATORS, Operator
from sait_deploy.plugins.pack_plan.reference import pack_plan as plan_in_numpy
from sait_deploy.plugins.packed_attention.reference import packed_attention as packed_in_numpy
from sait_deploy.plugins.read_extents.reference import read_extents as extents_in_numpy
from sait_deploy.plugins.spec import ElementType, TensorSpec
from sait_deploy.plugins.uniform_attention.reference import uniform_attention as uniform_in_numpy
from tests.plugins.forms import DOMAIN, OPSET, Form, Ints, runner

# On batches this small, waiting for a second thread takes longer than the work.
torch.set_num_threads(1)

Array: TypeAlias = NDArray[Any]
Bools: TypeAlias = NDArray[np.bool_]
Attributes: TypeAlias = tuple[int | float, ...]

OPSETS = (18, 20, 22, 23, 24)


class Activation(StrEnum):
    """Element type of queries, keys, values and the output: a NumPy dtype's name."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


TOLERANCES = {Activation.FLOAT32: 2e-6, Activation.FLOAT16: 2e-3}
"""Largest error of an attention, relative to the largest value that an image's tokens hold."""

HEADS = ((1, 8), (1, 64), (2, 40), (3, 16), (6, 64))
"""(num_heads, head size) pairs."""

LARGE_LENGTHS = ([1], [4101], [197] * 8, [1] * 64, [3, 577, *[1] * 62], [1 + 37 * i % 197 for i in range(64)])
"""Tokens per image of batches larger than :func:`lengths` draws."""


READ_EXTENTS, PACK_PLAN = OPERATORS["ReadExtents"], OPERATORS["PackPlan"]
PACKED_ATTENTION, UNIFORM_ATTENTION = OPERATORS["PackedAttention"], OPERATORS["UniformAttention"]


def lengths(longest: int = 197) -> st.SearchStrategy[list[int]]:
    """Tokens of each image: a few, one each, all equal, many images, and one very long image among short ones."""
    few = st.lists(st.integers(1, 12), min_size=1, max_size=6)
    one_each = st.integers(1, 64).map(lambda batch: [1] * batch)
    equal = st.builds(lambda batch, tokens: [tokens] * batch, st.integers(1, 8), st.integers(1, 12))
    many = st.lists(st.integers(1, 6), min_size=40, max_size=64)
    short = st.lists(st.integers(1, 4), max_size=12)
    one_long = st.builds(
        lambda before, long, after: [*before, long, *after], short, st.integers(longest // 2, longest), short
    )
    return few | one_each | equal | many | one_long


def cu_seqlens_of(tokens: Sequence[int]) -> Ints:
    """0 and the running sum of the images' tokens, int32 [B+1]."""
    return np.array([0, *np.cumsum(tokens)], dtype=np.int32)


def random_qkv(rows: int, heads: tuple[int, int], activation: Activation, seed: int) -> Array:
    """Normal queries, keys and values, [rows, 3*H*Dh]."""
    normal = np.random.default_rng(seed).standard_normal((rows, 3 * heads[0] * heads[1]))
    return normal.astype(activation)


def operator_model(
    operator: Operator,
    nodes: Sequence[Attributes] = ((),),
    activation: Activation = Activation.FLOAT32,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Returns a checked model with a node for each entry of ``nodes``, its attributes, all reading the same inputs."""
    spec = operator.spec

    def value(tensor: TensorSpec, suffix: str = "") -> onnx.ValueInfoProto:
        kinds = {ElementType.INT32: TensorProto.INT32, ElementType.BOOL: TensorProto.BOOL}
        kinds[ElementType.FLOAT32] = TensorProto.FLOAT
        kinds[ElementType.ACTIVATION] = helper.np_dtype_to_tensor_dtype(np.dtype(activation))
        shape = [int(size) if size.isdigit() else size for size in tensor.shape]
        return helper.make_tensor_value_info(tensor.name + suffix, kinds[tensor.element_type], shape)

    inputs, outputs, made = [value(tensor) for tensor in spec.inputs], [], []
    for index, attributes in enumerate(nodes):
        results = [value(tensor, f"_{index}") for tensor in spec.outputs]
        named = dict(zip((attribute.name for attribute in spec.attributes), attributes, strict=True))
        node = helper.make_node(spec.name, [i.name for i in inputs], [r.name for r in results], domain=DOMAIN)
        node.attribute.extend(helper.make_attribute(name, setting) for name, setting in named.items())
        made.append(node)
        outputs += results
    model = helper.make_model(
        helper.make_graph(made, "operators", inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)],
        functions=[operator.function(opset)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run_model(form: Form, operator: Operator, model: onnx.ModelProto) -> Callable[..., tuple[Array, ...]]:
    """Prepares a model of :func:`operator_model`: the operator's inputs in order to the model's outputs in order."""
    run, names = runner(form, model), [tensor.name for tensor in operator.spec.inputs]
    return lambda *arrays: tuple(run(dict(zip(names, arrays, strict=True))))


@cache
def compared(
    form: Form, operator: Operator, attributes: Attributes = (), activation: Activation = Activation.FLOAT32
) -> Callable[..., tuple[Array, ...]]:
    """Returns the operator in one of ``COMPARED_FORMS``: inputs in order to outputs in order."""
    if form is not Form.TORCH:
        return run_model(form, operator, operator_model(operator, [attributes], activation))

    def in_torch(*arrays: Array) -> tuple[Array, ...]:
        return tuple(t.numpy() for t in torch_outputs(operator, (*map(torch.from_numpy, arrays), *attributes)))

    return in_torch


def torch_outputs(operator: Operator, arguments: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    """Calls the torch form; a single output comes as a tuple too."""
    outputs = operator.torch_operator(*arguments)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def assert_fake_kernel_is_right(operator: Operator, arguments: Sequence[Any]) -> None:
    """Fails unless the outputs under FakeTensorMode have the real ones' shapes, dtypes, devices and strides."""
    with FakeTensorMode() as mode:
        faked = [mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments]
        fakes = torch_outputs(operator, faked)
    for fake, real in zip(fakes, torch_outputs(operator, arguments), strict=True):
        assert isinstance(fake, FakeTensor)
        assert (fake.shape, fake.dtype, fake.device) == (real.shape, real.dtype, real.device)
        assert fake.is_contiguous() == real.is_contiguous()


def read_extents(form: Form, rows: Ints, cu_seqlens: Ints) -> tuple[Ints, Ints]:
    """ReadExtents in any form: (kept, lanes)."""
    if form is Form.NUMPY:
        return extents_in_numpy(rows, cu_seqlens)
    kept, lanes = compared(form, READ_EXTENTS)(rows, cu_seqlens)
    return kept, lanes


def pack_plan(form: Form, kept: Ints, cu_seqlens: Ints, lanes: Ints) -> tuple[Ints, Ints, Bools]:
    """PackPlan in any form: (slots, unslots, mask)."""
    if form is Form.NUMPY:
        return plan_in_numpy(kept, cu_seqlens, lanes)
    slots, unslots, mask = compared(form, PACK_PLAN)(kept, cu_seqlens, lanes)
    return slots, unslots, mask


def plan_of(tokens: Sequence[int], spare: tuple[int, int] = (0, 0)) -> tuple[Ints, Ints, Bools]:
    """The reference plan of images with that many tokens, with rows and lanes to spare."""
    kept, lanes = (np.arange(size, dtype=np.int32) for size in (sum(tokens) + spare[0], max(tokens) + spare[1]))
    return plan_in_numpy(kept, cu_seqlens_of(tokens), lanes)


def packed_attention(
    form: Form, qkv: Array, tokens: Sequence[int], num_heads: int, scale: float, lanes: int = 0
) -> Array:
    """PackedAttention in any form, on images with that many tokens; the NumPy form is float64.

    Rows of ``qkv`` beyond the images' are to spare, and so are ``lanes``.
    """
    if form is Form.NUMPY:
        return packed_in_numpy(qkv, cu_seqlens_of(tokens), num_heads, scale)
    activation, spare = Activation(qkv.dtype.name), (len(qkv) - sum(tokens), lanes)
    (output,) = compared(form, PACKED_ATTENTION, (num_heads, scale), activation)(qkv, *plan_of(tokens, spare))
    return output


def uniform_attention(form: Form, qkv: Array, tokens: int, num_heads: int, scale: float) -> tuple[Array, Array]:
    """UniformAttention in any form, on images of ``tokens`` each: (output, weights); the NumPy form is float64."""
    if form is Form.NUMPY:
        return uniform_in_numpy(qkv, tokens, num_heads, scale)
    unslots, activation = np.arange(len(qkv), dtype=np.int32), Activation(qkv.dtype.name)
    call = compared(form, UNIFORM_ATTENTION, (num_heads, scale), activation)
    output, weights = call(qkv, unslots.reshape(-1, tokens), unslots)
    return output, weights


def relative_error(got: Array, want: Array, qkv: Array, tokens: Sequence[int]) -> float:
    """Largest difference, relative to the largest value in the same image: an output is an average of its values."""
    assert got.shape == want.shape, f"shape {got.shape}, not {want.shape}"
    values = np.abs(qkv[:, qkv.shape[1] // 3 * 2 :].astype(np.float64)).max(axis=1)
    largest = np.repeat(np.maximum.reduceat(values, cu_seqlens_of(tokens)[:-1]), tokens)
    return float((np.abs(got.astype(np.float64) - want).max(axis=1) / largest).max())
