"""MassTokenSelect: the same bits in every form, and the definition's words in each of them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.cases import MAX_PATCHES, PREFIXES, STEP, Batch, large_batches, masses, small_batches
from tests.plugins.forms import COMPARED_FORMS, Form, Ints, assert_same_bits, selector

examples = settings(max_examples=60, deadline=None)
every_form = pytest.mark.parametrize("form", list(Form))


def _select(form: Form, batch: Batch) -> tuple[Ints, Ints]:
    return selector(form, batch.prefix)(batch.importance, batch.mass, batch.keep_limits)


def _steps(scores: Sequence[float]) -> list[int]:
    """Round-half-even(importance * 2^20), without floating point."""
    return [round(Fraction(score) * 2**20) for score in scores]


def _goal(steps: Sequence[int], mass: float) -> int:
    """ceil(f32(total) * mass): the double product of two float32 is exact, packing it rounds it once."""
    share: float = struct.unpack("f", struct.pack("f", sum(steps) * mass))[0]
    return math.ceil(share)


def _kept_by_definition(scores: Sequence[float], mass: float, limits: Sequence[int], prefix: int) -> list[int]:
    """One image's keep, from the words of the specification and Python's integers."""
    steps, patches = _steps(scores), len(scores)
    ranked = sorted(range(patches), key=lambda index: (-steps[index], index))
    fewest = patches
    if mass < 1:
        goal = _goal(steps, mass)
        fewest = next(k for k in range(patches + 1) if sum(steps[index] for index in ranked[:k]) >= goal)
    least = max(limits[0], 1 if prefix == 0 else 0)
    kept = set(ranked[: max(min(fewest, limits[1]), least)])
    return [1] * prefix + [int(index in kept) for index in range(patches)]


@pytest.mark.parametrize("form", COMPARED_FORMS)
def test_every_form_selects_the_same_tokens(form: Form) -> None:
    rows = 0
    for batch, keep, counts in large_batches():
        got_keep, got_counts = _select(form, batch)
        where = f"{form}, prefix {batch.prefix}, N {batch.importance.shape[1]}"
        assert_same_bits(f"keep, {where}", got_keep, keep)
        assert_same_bits(f"counts, {where}", got_counts, counts)
        rows += len(counts)
    assert rows >= 10_000


def test_the_compared_rows_cover_the_specification() -> None:
    """Without this, the comparison above could pass on rows that exercise nothing."""
    seen: dict[str, int] = {}
    for batch, keep, counts in large_batches():
        steps = np.rint(batch.importance.astype(np.float64) / STEP).astype(np.int64)
        patches = steps.shape[1]
        is_kept, kept = keep[:, batch.prefix :] == 1, counts - batch.prefix
        least, most = batch.keep_limits.T
        sums = batch.importance.sum(axis=1, dtype=np.float64)
        assert batch.importance.min() >= 0
        assert batch.importance.max() <= 1
        assert sums.max() <= 1 + 2.0**-10
        lowest_kept = np.where(is_kept, steps, 2**24).min(axis=1, keepdims=True)
        fraction = batch.importance.astype(np.float64) / STEP % 1
        reached = np.where(is_kept, steps, 0).sum(axis=1)
        share = steps.sum(axis=1) * batch.mass.astype(np.float64)
        kinds = {
            "cut among ties": ((steps == lowest_kept) & ~is_kept).any(axis=1),
            "no patch kept": kept == 0,
            "one patch kept": kept == 1,
            "all kept": kept == patches,
            "some kept": (kept > 0) & (kept < patches),
            "neither limit reached": (kept > np.maximum(least, 1)) & (kept < np.minimum(most, patches)),
            "mass reached by rounding to float32": (share > reached) & (share.astype(np.float32) == reached),
            "all zero": sums == 0,
            "all below the resolution": (sums > 0) & (steps.sum(axis=1) == 0),
            "halfway between steps": (fraction == 0.5).all(axis=1),
            "sum above one": sums > 1 + 2.0**-12,
            "least above most": least > most,
            "least above N": least > patches,
            "most above N": most > patches,
            "equal limits": least == most,
            "no least": least == 0,
            "no most": most == 0,
            "mass zero": batch.mass == 0,
            "mass tiny": (batch.mass > 0) & (batch.mass < 1e-5),
            "mass just below one": (batch.mass < 1) & (batch.mass > 0.9999),
            "mass one": batch.mass == 1,
            "mass above one": batch.mass > 1,
            f"prefix {batch.prefix}": counts > 0,
            f"N {patches}": counts > 0,
        }
        for kind, rows in kinds.items():
            seen[kind] = seen.get(kind, 0) + int(rows.sum())
        assert len(np.unique(batch.mass)) > 1, "one mass in the whole batch"
        assert len(np.unique(least)) > 1, "one limit in the whole batch"
    wanted = {"N 1", f"N {MAX_PATCHES}", *(f"prefix {prefix}" for prefix in PREFIXES)}
    assert wanted <= seen.keys()
    assert {kind: rows for kind, rows in seen.items() if rows < 10} == {}


@every_form
@examples
@given(batch=small_batches())
def test_keep_is_what_the_definition_says(form: Form, batch: Batch) -> None:
    keep, counts = _select(form, batch)
    for row, scores in enumerate(batch.importance.tolist()):
        limits = batch.keep_limits[row].tolist()
        wanted = _kept_by_definition(scores, float(batch.mass[row]), limits, batch.prefix)
        assert keep[row].tolist() == wanted
        assert counts[row] == sum(wanted)


@examples
@given(batch=small_batches(max_patches=7))
def test_no_smaller_set_of_tokens_reaches_the_mass(batch: Batch) -> None:
    patches = batch.importance.shape[1]
    free = np.tile(np.array([[0, patches]], dtype=np.int32), (len(batch.mass), 1))
    batch = replace(batch, keep_limits=free, mass=np.minimum(batch.mass, np.float32(0.999)), prefix=1)
    keep, counts = _select(Form.NUMPY, batch)
    for row, scores in enumerate(batch.importance.tolist()):
        steps = _steps(scores)
        goal = _goal(steps, float(batch.mass[row]))
        assert sum(step for step, kept in zip(steps, keep[row, 1:], strict=True) if kept) >= goal
        fewer = int(counts[row]) - 2
        assert fewer < 0 or all(sum(tokens) < goal for tokens in combinations(steps, fewer))


@pytest.mark.parametrize(
    ("half_steps", "mass", "limits", "prefix", "kept"),
    [
        pytest.param([4, 8, 4], 0.5, [0, 3], 1, [1], id="reached exactly, nothing more"),
        pytest.param([4, 8, 4], 0.51, [0, 3], 1, [0, 1], id="crossing token kept, tie to the lower index"),
        pytest.param([2, 2, 2, 2], 0.5, [0, 4], 1, [0, 1], id="flat row keeps its first half"),
        pytest.param([200] * 10, 0.3, [0, 10], 1, [0, 1, 2], id="300.00001 of 1000 steps are 300 in float32"),
        pytest.param([1, 3, 0, 0], 0.1, [2, 4], 1, [0, 1], id="a half rounds to even, 0.5 to 0 and 1.5 to 2"),
        pytest.param([5, 4, 4, 4], 0.3, [2, 2], 1, [0, 1], id="2.5 rounds to 2 and ties with 2"),
        pytest.param([0, 0, 0], 0.9, [0, 3], 1, [], id="nothing to reach, nothing kept"),
        pytest.param([0, 0, 0], 0.9, [0, 3], 0, [0], id="without a prefix one token stays"),
        pytest.param([0, 0, 0], 1.0, [0, 3], 1, [0, 1, 2], id="mass one keeps tokens that weigh nothing"),
        pytest.param([2, 8, 2], 0.0, [0, 0], 0, [1], id="without a prefix one token stays whatever the limits"),
        pytest.param([2, 8, 2], 1.0, [0, 0], 2, [], id="only the prefix"),
        pytest.param([2, 8, 6], 0.1, [2, 3], 1, [1, 2], id="the least wins over the mass"),
        pytest.param([2, 8, 6], 2.0, [0, 2], 1, [1, 2], id="the most wins over the mass"),
        pytest.param([2, 8, 6], 2.0, [3, 1], 1, [0, 1, 2], id="the least wins over the most"),
        pytest.param([2, 8, 6], 0.0, [9, 9], 1, [0, 1, 2], id="limits beyond N"),
    ],
)
@every_form
def test_cases_worked_by_hand(
    form: Form, half_steps: list[int], mass: float, limits: list[int], prefix: int, kept: list[int]
) -> None:
    importance = np.array([half_steps], dtype=np.float32) * np.float32(STEP / 2)
    batch = Batch(importance, np.array([mass], dtype=np.float32), np.array([limits], dtype=np.int32), prefix)
    keep, counts = _select(form, batch)
    assert np.flatnonzero(keep[0]).tolist() == [*range(prefix), *(prefix + index for index in kept)]
    assert counts.tolist() == [prefix + len(kept)]


@examples
@given(batch=small_batches(), data=st.data())
def test_a_smaller_mass_keeps_a_subset(batch: Batch, data: st.DataObject) -> None:
    other = np.array([data.draw(masses()) for _ in batch.mass], dtype=np.float32)
    smaller, _ = _select(Form.NUMPY, replace(batch, mass=np.minimum(batch.mass, other)))
    larger, _ = _select(Form.NUMPY, replace(batch, mass=np.maximum(batch.mass, other)))
    assert (smaller <= larger).all()
