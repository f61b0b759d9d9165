"""Which steps are sparse, and at which density: a function of seed, epoch and step alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.errors import InvalidArgument
from sait_deploy.training.options import Alternation, DensityRange
from sait_deploy.training.plan import check_alternates, check_batches, kept_in_step

SPARSE = [Alternation.BATCH, Alternation.EPOCH]
PATCHES = 196
STEPS = 100


@st.composite
def ranges(draw: st.DrawFn) -> DensityRange:
    ends = sorted(draw(st.tuples(*[st.floats(1e-3, 1.0)] * 2)))
    return DensityRange(*ends)


seeds, epochs, steps = st.integers(0, 2**31 - 1), st.integers(0, 500), st.integers(0, 20_000)


@given(epochs, steps, st.integers(1, 500), st.integers(1, 4096), st.sampled_from(Alternation), ranges(), seeds)
def test_alternation_and_range(
    epoch: int, step: int, more: int, patches: int, alternation: Alternation, densities: DensityRange, seed: int
) -> None:
    of_epoch = step + more
    kept = kept_in_step(epoch, step, of_epoch, patches, alternation, densities, seed)
    assert kept == kept_in_step(epoch, step, of_epoch, patches, alternation, densities, seed)
    turn = {Alternation.BATCH: epoch * of_epoch + step, Alternation.EPOCH: epoch, Alternation.NEVER: 0}[alternation]
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
    kept = {kept_in_step(epoch, step, 20_001, PATCHES, Alternation.EPOCH, densities, seed) for step in some}
    assert len(kept) == 1
    assert None not in kept


@pytest.mark.parametrize("alternation", SPARSE)
def test_half_of_what_alternates_is_sparse_and_densities_fill_the_range(alternation: Alternation) -> None:
    densities = DensityRange(0.2, 0.7)
    of_batch = alternation is Alternation.BATCH
    turns = [(0, turn) if of_batch else (turn, 0) for turn in range(2000)]
    kept = [kept_in_step(*turn, 2000, PATCHES, alternation, densities, 0) for turn in turns]
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
        return [kept_in_step(*turn, STEPS, PATCHES, alternation, DensityRange(), seed) for turn in turns]

    assert plan(0) == plan(0)
    assert plan(0) != plan(1)


def test_every_epoch_draws_anew() -> None:
    plans = [
        tuple(
            kept_in_step(epoch, step, STEPS, PATCHES, Alternation.BATCH, DensityRange(), 0) for step in range(1, 40, 2)
        )
        for epoch in range(5)
    ]
    assert len(set(plans)) == 5


def test_a_range_of_one_density_is_that_density() -> None:
    kept = {kept_in_step(0, step, STEPS, 100, Alternation.BATCH, DensityRange(0.5, 0.5), 0) for step in range(1, 40, 2)}
    assert kept == {50}


@pytest.mark.parametrize("of_epoch", [1, 2, 3, 5, 100])
def test_batches_alternate_over_the_whole_training(of_epoch: int) -> None:
    """An epoch of an odd number of steps begins with what the one before did not end with."""
    turns = [(epoch, step) for epoch in range(6) for step in range(of_epoch)]
    sparse = [
        kept_in_step(*turn, of_epoch, PATCHES, Alternation.BATCH, DensityRange(), 0) is not None for turn in turns
    ]
    assert sparse == [bool(index % 2) for index in range(len(turns))]


@pytest.mark.parametrize(("epoch", "step", "kept"), [(0, 1, 129), (0, 99, 99), (3, 1, 166), (24, 51, 107)])
def test_the_draws_of_a_seed_stay_what_they_are(epoch: int, step: int, kept: int) -> None:
    """Published figures are those of trainings that drew these; neither the steps of an epoch nor anything else may."""
    for of_epoch in (STEPS, 2 * STEPS):
        assert kept_in_step(epoch, step, of_epoch, PATCHES, Alternation.BATCH, DensityRange(), 0) == kept


@pytest.mark.parametrize(
    ("alternation", "epochs", "of_epoch", "advised"),
    [(Alternation.BATCH, 1, 1, "--batch-size"), (Alternation.EPOCH, 1, 50, "--alternation batch")],
)
def test_a_training_without_a_sparse_step_is_refused(
    alternation: Alternation, epochs: int, of_epoch: int, advised: str
) -> None:
    with pytest.raises(InvalidArgument, match="has no sparse one") as refused:
        check_alternates(epochs, of_epoch, alternation)
    assert all(word in refused.value.hint for word in ("--epochs", "never", advised))


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(Alternation))
def test_what_is_refused_is_what_would_have_no_sparse_step(
    epochs: int, of_epoch: int, alternation: Alternation
) -> None:
    turns = [(epoch, step) for epoch in range(epochs) for step in range(of_epoch)]
    kept = [kept_in_step(*turn, of_epoch, PATCHES, alternation, DensityRange(), 0) for turn in turns]
    if any(count is not None for count in kept) or alternation is Alternation.NEVER:
        check_alternates(epochs, of_epoch, alternation)
    else:
        with pytest.raises(InvalidArgument):
            check_alternates(epochs, of_epoch, alternation)


@pytest.mark.parametrize(("images", "batch", "processes"), [(15, 8, 2), (3, 8, 2), (0, 1, 2)])
def test_images_that_make_no_batch_for_each_process(images: int, batch: int, processes: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_batches(images, batch, processes)
    assert refused.value.message == f"{images} images make no batch of {batch} on {processes} processes"
    assert "--batch-size" in refused.value.hint


@pytest.mark.parametrize(("images", "batch", "processes"), [(16, 8, 2), (15, 16, 1), (3, 8, 1)])
def test_images_that_make_a_batch(images: int, batch: int, processes: int) -> None:
    check_batches(images, batch, processes)
