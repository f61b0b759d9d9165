"""PackedAttention: attention inside each image, in every form, in float32 and float16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.checker
import onnx.parser
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.forms import COMPARED_FORMS, ONNX_FORMS, Form, runner
from tests.plugins.packing_forms import (
    HEADS,
    OPSETS,
    PACK_PLAN,
    PACKED_ATTENTION,
    READ_EXTENTS,
    TOLERANCES,
    Activation,
    Array,
    assert_fake_kernel_is_right,
    cu_seqlens_of,
    lengths,
    operator_model,
    packed_attention,
    plan_of,
    random_qkv,
    relative_error,
    run_model,
)

examples = settings(max_examples=12, deadline=None)
every_form = pytest.mark.parametrize("form", list(Form))
compared_forms = pytest.mark.parametrize("form", COMPARED_FORMS)
activations = pytest.mark.parametrize("activation", list(Activation))
seeds = st.integers(0, 2**16)
batches = lengths(longest=80)
neighbours = st.lists(st.integers(1, 9) | st.just(60), max_size=5)


def _assert_reference(form: Form, qkv: Array, tokens: Sequence[int], num_heads: int, scale: float) -> None:
    got = packed_attention(form, qkv, tokens, num_heads, scale)
    want = packed_attention(Form.NUMPY, qkv, tokens, num_heads, scale)
    assert got.dtype == qkv.dtype
    assert relative_error(got, want, qkv, tokens) < TOLERANCES[Activation(qkv.dtype.name)]


@compared_forms
@activations
@settings(max_examples=30, deadline=None)
@given(heads=st.sampled_from(HEADS), tokens=batches, seed=seeds)
def test_every_form_equals_the_reference(
    form: Form, activation: Activation, heads: tuple[int, int], tokens: list[int], seed: int
) -> None:
    _assert_reference(form, random_qkv(sum(tokens), heads, activation, seed), tokens, heads[0], heads[1] ** -0.5)


@pytest.mark.parametrize(
    "tokens",
    [[1], [577], [99] * 4, [1] * 64, [3, 399, 1, 1, 1, 1], [1 + 37 * i % 50 for i in range(64)]],
    ids=lambda tokens: f"{len(tokens)} images of {max(tokens)} at most",
)
@compared_forms
@activations
def test_every_form_equals_the_reference_on_large_batches(
    form: Form, activation: Activation, tokens: list[int]
) -> None:
    _assert_reference(form, random_qkv(sum(tokens), (2, 16), activation, 7), tokens, 2, 0.25)


@compared_forms
@activations
@examples
@given(tokens=batches, seed=seeds, spare=st.tuples(st.integers(1, 40), st.integers(0, 9)))
def test_rows_to_spare_are_harmless(
    form: Form, activation: Activation, tokens: list[int], seed: int, spare: tuple[int, int]
) -> None:
    """Rows behind the last image may hold anything, NaN too: images are as without them."""
    qkv = random_qkv(sum(tokens), (2, 16), activation, seed)
    padded = np.concatenate([qkv, np.full((spare[0], qkv.shape[1]), np.nan, qkv.dtype)])
    found = packed_attention(form, padded, tokens, 2, 0.25, lanes=spare[1])
    assert found.shape[0] == len(padded)
    want = packed_attention(Form.NUMPY, qkv, tokens, 2, 0.25)
    assert relative_error(found[: len(qkv)], want, qkv, tokens) < TOLERANCES[activation]
    exact = packed_attention(form, qkv, tokens, 2, 0.25)
    if not spare[1]:
        np.testing.assert_array_equal(found[: len(qkv)], exact)
    assert np.isfinite(found).all(), "such rows have the first row's output"


@every_form
@activations
@examples
@given(tokens=batches, data=st.data())
def test_an_image_does_not_depend_on_the_others(
    form: Form, activation: Activation, tokens: list[int], data: st.DataObject
) -> None:
    image, seed = data.draw(st.integers(0, len(tokens) - 1)), data.draw(seeds)
    qkv = random_qkv(sum(tokens), (2, 16), activation, seed)
    start = sum(tokens[:image])
    own = slice(start, start + tokens[image])
    among = packed_attention(form, qkv, tokens, 2, 0.25)[own]
    alone = packed_attention(form, qkv[own], [tokens[image]], 2, 0.25)
    before, after = data.draw(neighbours), data.draw(neighbours)
    loud = [
        20 * random_qkv(sum(others), (2, 16), activation, seed + side) for side, others in ((1, before), (2, after))
    ]
    moved = np.concatenate([loud[0], qkv[own], loud[1]])
    elsewhere = packed_attention(form, moved, [*before, tokens[image], *after], 2, 0.25)
    there = slice(sum(before), sum(before) + tokens[image])
    for got in (among, elsewhere[there]):
        assert relative_error(got, alone, qkv[own], [tokens[image]]) < TOLERANCES[activation]


def _with_scores(scores: Sequence[Sequence[float]], head_size: int, activation: Activation, seed: int) -> Array:
    """One head's qkv, [T, 3*Dh], of which at scale Dh^-0.5 every other query gives those scores, the rest the opposite.

    Queries and keys have one entry that is not 0, so that scores which float16 can hold are exact in every form.
    """
    keys = np.concatenate([np.asarray(image, dtype=np.float64) for image in scores])
    qkv = np.zeros((len(keys), 3, head_size), dtype=activation)
    qkv[:, 0, 0] = np.where(np.arange(len(keys)) % 2 == 0, 1, -1) * head_size**0.5
    qkv[:, 1, 0] = keys
    qkv[:, 2] = np.random.default_rng(seed).standard_normal((len(keys), head_size))
    return qkv.reshape(len(keys), -1)


@st.composite
def extreme_scores(draw: st.DrawFn) -> list[list[float]]:
    """Scores of short images beside one very long image: the first row's far above or below those of the others.

    All are quarters of at most 512, which float16 holds.
    """
    far = st.sampled_from([-200, -100, -50, -20, 0, 20, 50, 100, 200]) | st.integers(-200, 200)
    near = st.lists(st.integers(-8, 8).map(lambda quarters: quarters / 4), max_size=4)
    images = []
    for _ in range(draw(st.integers(1, 5))):
        level, first = draw(far), draw(far)
        images.append([float(level + first), *(level + score for score in draw(near))])
    images.insert(draw(st.integers(0, len(images))), [0.0] * draw(st.sampled_from([40, 200])))
    return images


@compared_forms
@activations
@settings(max_examples=30, deadline=None)
@given(scores=extreme_scores(), seed=seeds, head_size=st.sampled_from([16, 64]))
def test_padding_has_no_weight_however_extreme_the_scores(
    form: Form, activation: Activation, scores: list[list[float]], seed: int, head_size: int
) -> None:
    """A padding lane holds its image's first row, so that row's score is the one that padding could multiply."""
    qkv = _with_scores(scores, head_size, activation, seed)
    _assert_reference(form, qkv, [len(image) for image in scores], 1, head_size**-0.5)


@pytest.mark.parametrize("first", [200, -200])
@every_form
@activations
def test_a_far_first_row_takes_all_or_nothing_among_heavy_padding(
    form: Form, activation: Activation, first: int
) -> None:
    qkv = _with_scores([[first, 0, 0], [0] * 577], 64, activation, 3)
    values = qkv[:3, 128:].astype(np.float64)
    output = packed_attention(form, qkv, [3, 577], 1, 0.125)
    rest = values[1:].mean(axis=0)
    wanted = [values[0], rest, values[0]] if first > 0 else [rest, values[0], rest]
    assert np.abs(output[:3] - wanted).max() < TOLERANCES[activation] * np.abs(values).max()


@activations
@examples
@given(tokens=batches, seed=seeds)
def test_heads_are_independent(activation: Activation, tokens: list[int], seed: int) -> None:
    qkv = random_qkv(sum(tokens), (3, 16), activation, seed)
    together = packed_attention(Form.NUMPY, qkv, tokens, 3, 0.25).reshape(-1, 3, 16)
    for head in range(3):
        one = np.ascontiguousarray(qkv.reshape(-1, 3, 3, 16)[:, :, head]).reshape(-1, 48)
        alone = packed_attention(Form.NUMPY, one, tokens, 1, 0.25)
        assert relative_error(together[:, head], alone, one, tokens) < TOLERANCES[activation]


@activations
@examples
@given(tokens=batches, seed=seeds, halvings=st.integers(0, 4))
def test_the_scale_multiplies_the_queries(activation: Activation, tokens: list[int], seed: int, halvings: int) -> None:
    qkv = random_qkv(sum(tokens), (2, 16), activation, seed)
    scaled = qkv.copy()
    scaled[:, :32] *= 2.0**-halvings * 0.5
    by_hand = packed_attention(Form.NUMPY, scaled, tokens, 2, 0.5)
    assert (
        relative_error(packed_attention(Form.NUMPY, qkv, tokens, 2, 2.0 ** -(halvings + 2)), by_hand, qkv, tokens)
        < (TOLERANCES[activation])
    )


@every_form
@activations
def test_cases_worked_by_hand(form: Form, activation: Activation) -> None:
    """One token; two of score 0 and ln 3 at scale 1, so weights 1/4 and 3/4; four whose keys are the same."""
    qkv = np.zeros((7, 3, 8), dtype=activation)
    qkv[:, 0, 0] = 1
    qkv[2, 1, 0] = np.log(3)
    qkv[3:, 1, 0] = 5
    qkv[:, 2, 0] = [7, 4, 8, 1, 2, 3, 6]
    output = packed_attention(form, qkv.reshape(7, 24), [1, 2, 4], 1, 1.0)
    assert np.allclose(output[:, 0], [7, 7, 7, 3, 3, 3, 3], rtol=TOLERANCES[activation], atol=0)
    assert not output[:, 1:].any()


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_each_node_of_a_model_has_its_own_attributes(form: Form) -> None:
    tokens, nodes = [3, 1, 9], [(1, 0.5), (4, 0.125), (2, 1.0)]
    qkv = random_qkv(sum(tokens), (4, 8), Activation.FLOAT32, 4)
    outputs = run_model(form, PACKED_ATTENTION, operator_model(PACKED_ATTENTION, nodes))(qkv, *plan_of(tokens))
    wanted = [packed_attention(Form.NUMPY, qkv, tokens, *node) for node in nodes]
    for output, want in zip(outputs, wanted, strict=True):
        # Scores of 32 entries at scale 1 reach 20, and their errors grow as they do.
        assert relative_error(output, want, qkv, tokens) < 10 * TOLERANCES[Activation.FLOAT32]
    assert all(relative_error(wanted[0], other, qkv, tokens) > 0.01 for other in wanted[1:])


@pytest.mark.parametrize("opset", OPSETS)
@activations
def test_it_checks_and_runs_at_every_opset(activation: Activation, opset: int) -> None:
    tokens = [2, 5, 1]
    qkv = random_qkv(8, (2, 16), activation, 0)
    model = operator_model(PACKED_ATTENTION, [(2, 0.25)], activation, opset)
    (output,) = run_model(Form.ONNXRUNTIME, PACKED_ATTENTION, model)(qkv, *plan_of(tokens))
    want = packed_attention(Form.NUMPY, qkv, tokens, 2, 0.25)
    assert output.dtype == activation
    assert relative_error(output, want, qkv, tokens) < TOLERANCES[activation]


_TRUNK = """
<ir_version: 10, opset_import: ["" : {opset}, "ai.sait" : 1]>
trunk (int32[R] rows, int32[C] cu_seqlens, float[R, 96] tokens) => (float[T, 32] output) {{
    kept, lanes = ai.sait.ReadExtents (rows, cu_seqlens)
    qkv = Gather (tokens, kept)
    slots, unslots, mask = ai.sait.PackPlan (kept, cu_seqlens, lanes)
    output = ai.sait.PackedAttention <num_heads: int = 2, scale: float = 0.25> (qkv, slots, unslots, mask)
}}"""


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("form", ONNX_FORMS)
def test_it_runs_behind_the_seam_and_the_plan_at_every_opset(form: Form, opset: int) -> None:
    model = onnx.parser.parse_model(_TRUNK.format(opset=opset))
    model.functions.extend(operator.function(opset) for operator in (READ_EXTENTS, PACK_PLAN, PACKED_ATTENTION))
    onnx.checker.check_model(model, full_check=True)
    rows = np.random.default_rng(1).permutation(20).astype(np.int32)
    tokens, lengths = random_qkv(20, (2, 16), Activation.FLOAT32, 0), [1, 7, 3]
    (output,) = runner(form, model)({"rows": rows, "cu_seqlens": cu_seqlens_of(lengths), "tokens": tokens})
    kept = tokens[rows[:11]]
    want = packed_attention(Form.NUMPY, kept, lengths, 2, 0.25)
    assert relative_error(output, want, kept, lengths) < TOLERANCES[Activation.FLOAT32]


def _torch_arguments(tokens: Sequence[int], heads: tuple[int, int], activation: Activation) -> tuple[object, ...]:
    arrays = (random_qkv(sum(tokens), heads, activation, 0), *plan_of(tokens))
    return (*map(torch.from_numpy, arrays), heads[0], heads[1] ** -0.5)


@pytest.mark.parametrize("tokens", [[2, 5, 1], [3], [1, 1], [1]], ids=str)
@activations
def test_torch_accepts_it_as_an_operator(activation: Activation, tokens: list[int]) -> None:
    """Without gradients: the operator has none."""
    results = torch.library.opcheck(PACKED_ATTENTION.torch_operator, _torch_arguments(tokens, (2, 16), activation))
    assert set(results.values()) == {"SUCCESS"}


@activations
@examples
@given(tokens=batches, heads=st.sampled_from(HEADS))
def test_its_fake_kernel_gives_the_shape_and_dtype_of_the_real_one(
    activation: Activation, tokens: list[int], heads: tuple[int, int]
) -> None:
    assert_fake_kernel_is_right(PACKED_ATTENTION, _torch_arguments(tokens, heads, activation))
