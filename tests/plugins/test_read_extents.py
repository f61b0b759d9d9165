"""ReadExtents: the kept rows and the lanes, in every form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv, free_unbacked_symbols, statically_known_true

from tests.plugins.forms import COMPARED_FORMS, Form, Ints, assert_same_bits
from tests.plugins.packing_forms import (
    LARGE_LENGTHS,
    READ_EXTENTS,
    cu_seqlens_of,
    lengths,
    read_extents,
)

examples = settings(max_examples=60, deadline=None)
every_form = pytest.mark.parametrize("form", list(Form))


def _rows(size: int, seed: int) -> Ints:
    """A permutation of all flat indices, int32 [size]."""
    return np.random.default_rng(seed).permutation(size).astype(np.int32)


@every_form
@examples
@given(tokens=lengths(), dropped=st.integers(0, 40), seed=st.integers(0, 2**16))
def test_kept_is_the_first_of_rows_and_lanes_count_to_the_longest(
    form: Form, tokens: list[int], dropped: int, seed: int
) -> None:
    rows = _rows(sum(tokens) + dropped, seed)
    kept, lanes = read_extents(form, rows, cu_seqlens_of(tokens))
    assert kept.dtype == np.int32
    assert lanes.dtype == np.int32
    assert kept.tolist() == rows.tolist()[: sum(tokens)]
    assert lanes.tolist() == list(range(max(tokens)))


@pytest.mark.parametrize("tokens", LARGE_LENGTHS, ids=lambda tokens: f"{len(tokens)} images of {max(tokens)} at most")
@pytest.mark.parametrize("form", COMPARED_FORMS)
def test_every_form_gives_the_same_bits(form: Form, tokens: list[int]) -> None:
    rows, cu_seqlens = _rows(sum(tokens) * 2, 3), cu_seqlens_of(tokens)
    wanted = read_extents(Form.NUMPY, rows, cu_seqlens)
    for name, got, want in zip(("kept", "lanes"), read_extents(form, rows, cu_seqlens), wanted, strict=True):
        assert_same_bits(f"{name}, {form}", got, want)


@pytest.mark.parametrize(
    ("rows", "cu_seqlens", "kept", "width"),
    [
        pytest.param([0, 2, 4, 1, 3, 5], [0, 1, 3], [0, 2, 4], 2, id="some dropped"),
        pytest.param([5, 3, 1, 0, 2, 4], [0, 4], [5, 3, 1, 0], 4, id="one image"),
        pytest.param([0, 1, 2, 3], [0, 2, 4], [0, 1, 2, 3], 2, id="none dropped"),
        pytest.param([7, 0], [0, 1], [7], 1, id="one token"),
        pytest.param([6, 1, 9, 8, 2, 4], [0, 1, 2, 3], [6, 1, 9], 1, id="one token in each image"),
        pytest.param([6, 1, 9, 8, 2, 4], [0, 3, 4, 5], [6, 1, 9, 8, 2], 3, id="the longest comes first"),
    ],
)
@every_form
def test_cases_worked_by_hand(form: Form, rows: list[int], cu_seqlens: list[int], kept: list[int], width: int) -> None:
    got, lanes = read_extents(form, np.array(rows, dtype=np.int32), np.array(cu_seqlens, dtype=np.int32))
    assert got.tolist() == kept
    assert lanes.tolist() == list(range(width))


@pytest.mark.parametrize("form", [Form.NUMPY, Form.TORCH])
def test_kept_is_no_view_of_rows(form: Form) -> None:
    rows = _rows(9, 0)
    before = rows.copy()
    kept, _ = read_extents(form, rows, cu_seqlens_of([3, 2]))
    kept[:] = -1
    assert np.array_equal(rows, before)


def _tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(_rows(12, 1)), torch.from_numpy(cu_seqlens_of([2, 5, 1]))


def test_torch_accepts_it_as_an_operator() -> None:
    """The check left out traces with static shapes, which the outputs do not have."""
    results = torch.library.opcheck(READ_EXTENTS.torch_operator, _tensors())
    assert set(results) == {
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_dynamic",
    }
    assert set(results.values()) == {"SUCCESS"}


def test_its_fake_sizes_are_free_and_bounded() -> None:
    rows, cu_seqlens = _tensors()
    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        fake_rows = mode.from_tensor(rows)
        fakes = READ_EXTENTS.torch_operator(fake_rows, mode.from_tensor(cu_seqlens))
    for fake, real in zip(fakes, READ_EXTENTS.torch_operator(rows, cu_seqlens), strict=True):
        assert (fake.dtype, fake.device, fake.dim()) == (real.dtype, real.device, real.dim())
    total, longest = (fake.shape[0] for fake in fakes)
    assert len(free_unbacked_symbols([total, longest])) == 2
    for bound in (longest >= 1, longest <= total, total <= fake_rows.shape[0]):
        assert statically_known_true(bound)
    for beyond in (longest >= 2, longest >= total, total >= fake_rows.shape[0]):
        assert not statically_known_true(beyond)


def test_without_free_sizes_its_fake_kernel_names_the_operator() -> None:
    with FakeTensorMode() as mode, pytest.raises(DynamicOutputShapeException, match="read_extents"):
        READ_EXTENTS.torch_operator(*map(mode.from_tensor, _tensors()))
