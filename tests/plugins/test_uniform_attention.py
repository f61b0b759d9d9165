"""UniformAttention: attention and its weights where all images have as many tokens, in every form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.forms import COMPARED_FORMS, ONNX_FORMS, Form
from tests.plugins.packing_forms import (
    HEADS,
    OPSETS,
    TOLERANCES,
    UNIFORM_ATTENTION,
    Activation,
    Array,
    assert_fake_kernel_is_right,
    operator_model,
    packed_attention,
    random_qkv,
    relative_error,
    run_model,
    uniform_attention,
)

examples = settings(max_examples=12, deadline=None)
every_form = pytest.mark.parametrize("form", list(Form))
compared_forms = pytest.mark.parametrize("form", COMPARED_FORMS)
activations = pytest.mark.parametrize("activation", list(Activation))
seeds = st.integers(0, 2**16)
sizes = (
    st.tuples(st.integers(1, 6), st.integers(1, 12))
    | st.tuples(st.integers(1, 64), st.just(1))
    | st.tuples(st.integers(50, 64), st.integers(1, 5))
    | st.tuples(st.just(1), st.integers(1, 197))
)
"""(images, tokens of each): a few of each, one token each, many images, one image."""


def _assert_reference(form: Form, qkv: Array, size: tuple[int, int], num_heads: int, scale: float) -> None:
    images, tokens = size
    output, weights = uniform_attention(form, qkv, tokens, num_heads, scale)
    want, want_weights = uniform_attention(Form.NUMPY, qkv, tokens, num_heads, scale)
    tolerance = TOLERANCES[Activation(qkv.dtype.name)]
    assert output.dtype == qkv.dtype
    assert weights.dtype == np.float32
    assert weights.shape == (images, num_heads, tokens, tokens)
    assert relative_error(output, want, qkv, [tokens] * images) < tolerance
    assert np.abs(weights - want_weights).max() < tolerance


@compared_forms
@activations
@settings(max_examples=30, deadline=None)
@given(heads=st.sampled_from(HEADS), size=sizes, seed=seeds)
def test_every_form_equals_the_reference(
    form: Form, activation: Activation, heads: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    qkv = random_qkv(size[0] * size[1], heads, activation, seed)
    _assert_reference(form, qkv, size, heads[0], heads[1] ** -0.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 577), (4, 197), (64, 50)], ids=str)
@compared_forms
@activations
def test_every_form_equals_the_reference_on_large_batches(
    form: Form, activation: Activation, size: tuple[int, int]
) -> None:
    _assert_reference(form, random_qkv(size[0] * size[1], (2, 16), activation, 7), size, 2, 0.25)


@every_form
@activations
@examples
@given(size=sizes, seed=seeds)
def test_weights_are_float32_distributions_whatever_the_activations(
    form: Form, activation: Activation, size: tuple[int, int], seed: int
) -> None:
    """A softmax in float16 would miss a sum of 1 by much more."""
    _, weights = uniform_attention(form, random_qkv(size[0] * size[1], (2, 16), activation, seed), size[1], 2, 0.25)
    assert (weights >= 0).all()
    assert np.abs(weights.sum(axis=3, dtype=np.float64) - 1).max() < TOLERANCES[Activation.FLOAT32]


@activations
@examples
@given(size=sizes, seed=seeds)
def test_the_output_is_the_weighted_mean_of_the_values(
    activation: Activation, size: tuple[int, int], seed: int
) -> None:
    images, tokens = size
    qkv = random_qkv(images * tokens, (2, 16), activation, seed)
    output, weights = uniform_attention(Form.NUMPY, qkv, tokens, 2, 0.25)
    values = qkv[:, 64:].astype(np.float64).reshape(images, tokens, 2, 16)
    mean = np.einsum("bhqk,bkhd->bqhd", weights, values).reshape(images * tokens, 32)
    assert relative_error(output, mean, qkv, [tokens] * images) < TOLERANCES[activation]


@activations
@examples
@given(heads=st.sampled_from(HEADS), size=sizes, seed=seeds)
def test_it_is_packed_attention_on_equal_lengths(
    activation: Activation, heads: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    images, tokens = size
    qkv, scale = random_qkv(images * tokens, heads, activation, seed), heads[1] ** -0.5
    packed = packed_attention(Form.NUMPY, qkv, [tokens] * images, heads[0], scale)
    output, _ = uniform_attention(Form.NUMPY, qkv, tokens, heads[0], scale)
    assert relative_error(output, packed.astype(np.float64), qkv, [tokens] * images) < TOLERANCES[activation]


@every_form
@activations
def test_a_case_worked_by_hand(form: Form, activation: Activation) -> None:
    """Two images of two tokens, two heads of size 8, scale 1: scores 0 and ln 3 in one head, all 0 in the other."""
    qkv = np.zeros((4, 3, 2, 8), dtype=activation)
    qkv[:, 0, 0, 0] = 1
    qkv[1::2, 1, 0, 0] = np.log(3)
    qkv[:, 2, :, 0] = [[4, 2], [8, 6], [0, 1], [4, 3]]
    output, weights = uniform_attention(form, qkv.reshape(4, 48), 2, 2, 1.0)
    tolerance = TOLERANCES[activation]
    assert np.allclose(weights[:, 0], [0.25, 0.75], rtol=tolerance, atol=0)
    assert np.allclose(weights[:, 1], 0.5, rtol=tolerance, atol=0)
    assert np.allclose(output[:, [0, 8]], [[7, 4], [7, 4], [3, 2], [3, 2]], rtol=tolerance, atol=0)


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_each_node_of_a_model_has_its_own_attributes(form: Form) -> None:
    nodes: Sequence[tuple[int, float]] = [(1, 0.5), (4, 0.125), (2, 1.0)]
    qkv, unslots = random_qkv(12, (4, 8), Activation.FLOAT32, 4), np.arange(12, dtype=np.int32)
    run = run_model(form, UNIFORM_ATTENTION, operator_model(UNIFORM_ATTENTION, nodes))
    outputs = run(qkv, unslots.reshape(2, 6), unslots)[::2]
    wanted = [uniform_attention(Form.NUMPY, qkv, 6, *node)[0] for node in nodes]
    for output, want in zip(outputs, wanted, strict=True):
        # Scores of 32 entries at scale 1 reach 20, and their errors grow as they do.
        assert relative_error(output, want, qkv, [6, 6]) < 10 * TOLERANCES[Activation.FLOAT32]
    assert all(relative_error(wanted[0], other, qkv, [6, 6]) > 0.01 for other in wanted[1:])


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_weights_need_not_be_read(form: Form) -> None:
    qkv, unslots = random_qkv(12, (2, 16), Activation.FLOAT32, 0), np.arange(12, dtype=np.int32)
    model = operator_model(UNIFORM_ATTENTION, [(2, 0.25)])
    del model.graph.output[1]
    (output,) = run_model(form, UNIFORM_ATTENTION, model)(qkv, unslots.reshape(3, 4), unslots)
    want, _ = uniform_attention(Form.NUMPY, qkv, 4, 2, 0.25)
    assert relative_error(output, want, qkv, [4] * 3) < TOLERANCES[Activation.FLOAT32]


@pytest.mark.parametrize("opset", OPSETS)
@activations
def test_it_checks_and_runs_at_every_opset(activation: Activation, opset: int) -> None:
    qkv, unslots = random_qkv(12, (2, 16), activation, 0), np.arange(12, dtype=np.int32)
    model = operator_model(UNIFORM_ATTENTION, [(2, 0.25)], activation, opset)
    output, weights = run_model(Form.ONNXRUNTIME, UNIFORM_ATTENTION, model)(qkv, unslots.reshape(3, 4), unslots)
    want, want_weights = uniform_attention(Form.NUMPY, qkv, 4, 2, 0.25)
    assert output.dtype == activation
    assert weights.dtype == np.float32
    assert relative_error(output, want, qkv, [4] * 3) < TOLERANCES[activation]
    assert np.abs(weights - want_weights).max() < TOLERANCES[activation]


def _torch_arguments(size: tuple[int, int], heads: tuple[int, int], activation: Activation) -> tuple[object, ...]:
    unslots = torch.arange(size[0] * size[1], dtype=torch.int32)
    qkv = torch.from_numpy(random_qkv(len(unslots), heads, activation, 0))
    return qkv, unslots.reshape(size), unslots, heads[0], heads[1] ** -0.5


@pytest.mark.parametrize("size", [(3, 4), (1, 5), (4, 1), (1, 1)], ids=str)
@activations
def test_torch_accepts_it_as_an_operator(activation: Activation, size: tuple[int, int]) -> None:
    """Without gradients: the operator has none."""
    results = torch.library.opcheck(UNIFORM_ATTENTION.torch_operator, _torch_arguments(size, (2, 16), activation))
    assert set(results.values()) == {"SUCCESS"}


@activations
@examples
@given(size=sizes, heads=st.sampled_from(HEADS))
def test_its_fake_kernel_gives_the_shapes_and_dtypes_of_the_real_one(
    activation: Activation, size: tuple[int, int], heads: tuple[int, int]
) -> None:
    assert_fake_kernel_is_right(UNIFORM_ATTENTION, _torch_arguments(size, heads, activation))
