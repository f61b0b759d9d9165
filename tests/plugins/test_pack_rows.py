"""PackRows: the plan's properties, in every form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.cases import large_batches
from tests.plugins.forms import COMPARED_FORMS, Form, Ints, assert_same_bits, packer

examples = settings(max_examples=60, deadline=None)
every_form = pytest.mark.parametrize("form", list(Form))


@st.composite
def keeps(draw: st.DrawFn) -> Ints:
    """int32 [B, P+N] of ones and zeros, images that keep all or nothing among them."""
    batch, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    bits = st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens)
    rows = bits | st.sampled_from([[0] * tokens, [1] * tokens])
    return np.array([draw(rows) for _ in range(batch)], dtype=np.int32)


def _pack(form: Form, keep: Ints) -> tuple[Ints, Ints]:
    return packer(form)(keep, keep.sum(axis=1, dtype=np.int32))


@pytest.mark.parametrize("form", COMPARED_FORMS)
def test_every_form_packs_selected_tokens_alike(form: Form) -> None:
    images = 0
    for _, keep, counts in large_batches():
        rows, cu_seqlens = packer(Form.NUMPY)(keep, counts)
        got_rows, got_cu_seqlens = packer(form)(keep, counts)
        where = f"{form}, keep {keep.shape}"
        assert_same_bits(f"rows, {where}", got_rows, rows)
        assert_same_bits(f"cu_seqlens, {where}", got_cu_seqlens, cu_seqlens)
        images += len(counts)
    assert images >= 10_000


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("form", COMPARED_FORMS)
def test_every_form_packs_any_density_alike(form: Form, density: float) -> None:
    rng = np.random.default_rng(5)
    for batch, tokens in ((1, 1), (1, 4101), (7, 197), (64, 577), (300, 3)):
        keep = (rng.random((batch, tokens)) < density).astype(np.int32)
        for name, got, want in zip(("rows", "cu_seqlens"), _pack(form, keep), _pack(Form.NUMPY, keep), strict=True):
            assert_same_bits(f"{name}, {form}, keep {keep.shape}", got, want)


@every_form
@examples
@given(keep=keeps())
def test_rows_are_the_kept_tokens_then_the_dropped_ones_each_ascending(form: Form, keep: Ints) -> None:
    rows, _ = _pack(form, keep)
    flat = keep.reshape(-1).tolist()
    kept = [index for index, bit in enumerate(flat) if bit == 1]
    dropped = [index for index, bit in enumerate(flat) if bit == 0]
    assert rows.dtype == np.int32
    assert rows.tolist() == kept + dropped
    assert sorted(rows.tolist()) == list(range(keep.size))


@every_form
@examples
@given(keep=keeps())
def test_cu_seqlens_delimit_each_image_among_the_rows(form: Form, keep: Ints) -> None:
    rows, cu_seqlens = _pack(form, keep)
    tokens = keep.shape[1]
    assert cu_seqlens.dtype == np.int32
    assert len(cu_seqlens) == len(keep) + 1
    assert cu_seqlens[0] == 0
    assert cu_seqlens[-1] == keep.sum()
    for image, bits in enumerate(keep):
        own = rows[cu_seqlens[image] : cu_seqlens[image + 1]]
        assert (own // tokens == image).all()
        assert (own % tokens).tolist() == np.flatnonzero(bits).tolist()


@pytest.mark.parametrize("form", list(Form))
def test_a_plan_worked_by_hand(form: Form) -> None:
    keep = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]], dtype=np.int32)
    rows, cu_seqlens = _pack(form, keep)
    assert rows.tolist() == [0, 2, 4, 5, 6, 7, 12, 15, 1, 3, 8, 9, 10, 11, 13, 14]
    assert cu_seqlens.tolist() == [0, 2, 6, 6, 8]
