"""PackPlan: the index between packed rows and padded lanes, in every form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.forms import COMPARED_FORMS, Form, Ints, assert_same_bits
from tests.plugins.packing_forms import (
    LARGE_LENGTHS,
    PACK_PLAN,
    Bools,
    assert_fake_kernel_is_right,
    cu_seqlens_of,
    lengths,
    pack_plan,
)

examples = settings(max_examples=40, deadline=None)
every_form = pytest.mark.parametrize("form", list(Form))
spares = st.just((0, 0)) | st.tuples(st.integers(0, 40), st.integers(0, 9))


def _inputs(tokens: Sequence[int], seed: int = 0, spare: tuple[int, int] = (0, 0)) -> tuple[Ints, Ints, Ints]:
    """(kept, cu_seqlens, lanes), kept in no order, with that many rows and lanes to spare."""
    rows = sum(tokens) + spare[0]
    kept = np.random.default_rng(seed).permutation(2 * rows)[:rows].astype(np.int32)
    return kept, cu_seqlens_of(tokens), np.arange(max(tokens) + spare[1], dtype=np.int32)


def _assert_same_plan(where: str, got: tuple[Ints, Ints, Bools], want: tuple[Ints, Ints, Bools]) -> None:
    (slots, unslots, mask), (want_slots, want_unslots, want_mask) = got, want
    assert_same_bits(f"slots, {where}", slots, want_slots)
    assert_same_bits(f"unslots, {where}", unslots, want_unslots)
    assert mask.dtype == np.bool_, where
    assert mask.shape == want_mask.shape, where
    assert np.array_equal(mask, want_mask), where


@every_form
@examples
@given(tokens=lengths(), seed=st.integers(0, 2**16), spare=spares)
def test_the_plan_is_what_the_definition_says(form: Form, tokens: list[int], seed: int, spare: tuple[int, int]) -> None:
    """Also of batches with rows and lanes to spare, which are no image's: such rows have the first lane."""
    slots, unslots, mask = pack_plan(form, *_inputs(tokens, seed, spare))
    batch, width = len(tokens), max(tokens) + spare[1]
    assert all(rows.dtype == np.int32 for rows in (slots, unslots))
    assert mask.dtype == np.bool_
    assert (slots.shape, unslots.shape, mask.shape) == ((batch, width), (sum(tokens) + spare[0],), (batch, 1, 1, width))
    assert unslots[sum(tokens) :].tolist() == [0] * spare[0]
    row = 0
    for image, length in enumerate(tokens):
        padding = width - length
        assert slots[image].tolist() == [*range(row, row + length), *[row] * padding]
        assert unslots[row : row + length].tolist() == list(range(image * width, image * width + length))
        assert mask[image, 0, 0].tolist() == [True] * length + [False] * padding
        row += length


@pytest.mark.parametrize("tokens", LARGE_LENGTHS, ids=lambda tokens: f"{len(tokens)} images of {max(tokens)} at most")
@pytest.mark.parametrize("form", COMPARED_FORMS)
@pytest.mark.parametrize("spare", [(0, 0), (61, 7)], ids=("exact", "to spare"))
def test_every_form_gives_the_same_bits(form: Form, tokens: list[int], spare: tuple[int, int]) -> None:
    inputs = _inputs(tokens, spare=spare)
    _assert_same_plan(form, pack_plan(form, *inputs), pack_plan(Form.NUMPY, *inputs))


@every_form
def test_a_plan_worked_by_hand(form: Form) -> None:
    slots, unslots, mask = pack_plan(form, *_inputs([2, 4, 1]))
    assert slots.tolist() == [[0, 1, 0, 0], [2, 3, 4, 5], [6, 6, 6, 6]]
    assert unslots.tolist() == [0, 1, 4, 5, 6, 7, 8]
    assert mask.tolist() == [
        [[[True, True, False, False]]],
        [[[True, True, True, True]]],
        [[[True, False, False, False]]],
    ]


@pytest.mark.parametrize("tokens", [[2, 5, 1], [3], [1, 1, 1], [1]], ids=str)
def test_torch_accepts_it_as_an_operator(tokens: list[int]) -> None:
    results = torch.library.opcheck(PACK_PLAN.torch_operator, tuple(map(torch.from_numpy, _inputs(tokens))))
    assert set(results.values()) == {"SUCCESS"}


@examples
@given(tokens=lengths(), spare=spares)
def test_its_fake_kernel_gives_the_shapes_and_dtypes_of_the_real_one(tokens: list[int], spare: tuple[int, int]) -> None:
    assert_fake_kernel_is_right(PACK_PLAN, tuple(map(torch.from_numpy, _inputs(tokens, spare=spare))))
