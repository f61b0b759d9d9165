"""Which steps are sparse, and at which density: a function of seed, epoch and step alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.training.options import Alternation, DensityRange
from sait_deploy.training.plan import kept_in_step

SPARSE = [Alternation.BATCH, Alternation.EPOCH]
PATCHES = 196


@st.composite
def ranges(draw: st.DrawFn) -> DensityRange:
    ends = sorted(draw(st.tuples(*[st.floats(1e-3, 1.0)] * 2)))
    return DensityRange(*ends)


seeds, epochs, steps = st.integers(0, 2**31 - 1), st.integers(0, 500), st.integers(0, 20_000)


@given(epochs, steps, st.integers(1, 4096), st.sampled_from(Alternation), ranges(), seeds)
def test_alternation_and_range(
    epoch: int, step: int, patches: int, alternation: Alternation, densities: DensityRange, seed: int
) -> None:
    kept = kept_in_step(epoch, step, patches, alternation, densities, seed)
    assert kept == kept_in_step(epoch, step, patches, alternation, densities, seed)
    turn = {Alternation.BATCH: step, Alternation.EPOCH: epoch, Alternation.NEVER: 0}[alternation]
    if turn % 2 == 0:
        assert kept is None
        return
    assert kept is not None
    assert math.ceil(densities.low * patches * (1 - 1e-12)) <= kept <= math.ceil(densities.high * patches * (1 + 1e-12))
    assert 1 <= kept <= patches


@given(st.integers(0, 250).map(lambda half: 2 * half + 1), st.lists(steps, min_size=2, max_size=6), ranges(), seeds)
def test_an_epoch_has_one_density_where_epochs_alternate(
    epoch: int, some: list[int], densities: DensityRange, seed: int
) -> None:
    kept = {kept_in_step(epoch, step, PATCHES, Alternation.EPOCH, densities, seed) for step in some}
    assert len(kept) == 1
    assert None not in kept


@pytest.mark.parametrize("alternation", SPARSE)
def test_half_of_what_alternates_is_sparse_and_densities_fill_the_range(alternation: Alternation) -> None:
    densities = DensityRange(0.2, 0.7)
    of_batch = alternation is Alternation.BATCH
    turns = [(0, turn) if of_batch else (turn, 0) for turn in range(2000)]
    kept = [kept_in_step(*turn, PATCHES, alternation, densities, 0) for turn in turns]
    drawn = np.array([count for count in kept if count is not None]) / PATCHES
    assert len(drawn) == 1000
    # A uniform draw's mean is 0.45 with a standard error of 0.0046; rounding up adds half a token of 196.
    assert abs(float(drawn.mean()) - 0.4526) < 0.025
    assert float(drawn.min()) < 0.22
    assert float(drawn.max()) > 0.68


@pytest.mark.parametrize("alternation", SPARSE)
def test_another_seed_draws_other_densities(alternation: Alternation) -> None:
    def plan(seed: int) -> list[int | None]:
        turns = [(1, step) if alternation is Alternation.BATCH else (step, 1) for step in range(1, 60, 2)]
        return [kept_in_step(*turn, PATCHES, alternation, DensityRange(), seed) for turn in turns]

    assert plan(0) == plan(0)
    assert plan(0) != plan(1)


def test_every_epoch_draws_anew() -> None:
    plans = [
        tuple(kept_in_step(epoch, step, PATCHES, Alternation.BATCH, DensityRange(), 0) for step in range(1, 40, 2))
        for epoch in range(5)
    ]
    assert len(set(plans)) == 5


def test_a_range_of_one_density_is_that_density() -> None:
    kept = {kept_in_step(0, step, 100, Alternation.BATCH, DensityRange(0.5, 0.5), 0) for step in range(1, 40, 2)}
    assert kept == {50}
