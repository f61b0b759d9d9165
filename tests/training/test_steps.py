"""Which steps are sparse, and what they keep: a function of seed, epoch and step alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.errors import InvalidArgument
from sait_deploy.tokens import OperatingPoint
from sait_deploy.training.options import Alternation, DensityRange, MassRange, TrainOptions
from sait_deploy.training.steps import check_alternates, check_batches, point_in_step

SPARSE = [Alternation.BATCH, Alternation.EPOCH]
PATCHES = 196
STEPS = 100


def plan(**options: Any) -> TrainOptions:
    return TrainOptions(Path("out"), **options)


@st.composite
def ranges(draw: st.DrawFn) -> DensityRange:
    ends = sorted(draw(st.tuples(*[st.floats(1e-3, 1.0)] * 2)))
    return DensityRange(*ends)


@st.composite
def mass_ranges(draw: st.DrawFn) -> MassRange:
    ends = sorted(draw(st.tuples(*[st.floats(1e-3, 1.0, exclude_max=True)] * 2)))
    return MassRange(*ends)


seeds, epochs, steps = st.integers(0, 2**31 - 1), st.integers(0, 500), st.integers(0, 20_000)


def turn_of(epoch: int, step: int, of_epoch: int, alternation: Alternation) -> int:
    """How many steps or epochs came before, whichever alternate."""
    return {Alternation.BATCH: epoch * of_epoch + step, Alternation.EPOCH: epoch, Alternation.NEVER: 0}[alternation]


def draws_a_mass(epoch: int, step: int, of_epoch: int, alternation: Alternation) -> bool:
    """Whether it is the second of two sparse steps: of the training where steps alternate, of its epoch otherwise."""
    turn = turn_of(epoch, step, of_epoch, alternation)
    return turn % 2 == 1 and (step % 2 == 1 if alternation is Alternation.EPOCH else turn % 4 == 3)


@given(epochs, steps, st.integers(1, 500), st.integers(1, 4096), st.sampled_from(Alternation), ranges(), seeds)
def test_alternation_and_range(
    epoch: int, step: int, more: int, patches: int, alternation: Alternation, densities: DensityRange, seed: int
) -> None:
    of_epoch, options = step + more, plan(alternation=alternation, densities=densities, seed=seed)
    point = point_in_step(epoch, step, of_epoch, patches, options)
    assert point == point_in_step(epoch, step, of_epoch, patches, options)
    if turn_of(epoch, step, of_epoch, alternation) % 2 == 0:
        assert point is None
        return
    assert point is not None
    kept = point.min_keep
    assert point == OperatingPoint(1.0, kept, kept)
    assert math.ceil(densities.low * patches * (1 - 1e-12)) <= kept <= math.ceil(densities.high * patches * (1 + 1e-12))
    assert 1 <= kept <= patches


@given(
    st.tuples(epochs, steps, st.integers(1, 500), st.integers(1, 4096)),
    st.sampled_from(Alternation),
    ranges(),
    mass_ranges(),
    seeds,
)
def test_every_other_sparse_step_draws_a_mass_and_nothing_else_changes(
    where: tuple[int, int, int, int], alternation: Alternation, densities: DensityRange, masses: MassRange, seed: int
) -> None:
    epoch, step, more, patches = where
    of_epoch = step + more
    options = {"alternation": alternation, "densities": densities, "seed": seed}
    without = point_in_step(epoch, step, of_epoch, patches, plan(**options))
    point = point_in_step(epoch, step, of_epoch, patches, plan(masses=masses, **options))
    assert point == point_in_step(epoch, step, of_epoch, patches, plan(masses=masses, **options))
    if not draws_a_mass(epoch, step, of_epoch, alternation):
        assert point == without
        return
    assert point is not None and without is not None
    assert (point.min_keep, point.max_keep) == (1, patches)
    assert masses.low * (1 - 1e-12) <= point.mass <= masses.high * (1 + 1e-12)


@pytest.mark.parametrize("masses", [None, MassRange()])
def test_every_step_of_a_sparse_epoch_draws_anew(masses: MassRange | None) -> None:
    options = plan(alternation=Alternation.EPOCH, masses=masses)
    assert {point_in_step(2, step, STEPS, PATCHES, options) for step in range(STEPS)} == {None}
    points = [point_in_step(3, step, STEPS, PATCHES, options) for step in range(STEPS)]
    assert None not in points
    assert len(set(points)) > STEPS // 2


@pytest.mark.parametrize("alternation", SPARSE)
def test_half_of_what_alternates_is_sparse_and_densities_fill_the_range(alternation: Alternation) -> None:
    options = plan(alternation=alternation, densities=DensityRange(0.2, 0.7))
    turns = [(turn // 20, turn % 20) for turn in range(2000)]
    points = [point_in_step(*turn, 20, PATCHES, options) for turn in turns]
    drawn = np.array([point.max_keep for point in points if point is not None]) / PATCHES
    assert len(drawn) == 1000
    # A uniform draw's mean is 0.45 with a standard error of 0.0046; rounding up adds half a token of 196.
    assert abs(float(drawn.mean()) - 0.4526) < 0.025
    assert float(drawn.min()) < 0.22
    assert float(drawn.max()) > 0.68


@pytest.mark.parametrize("alternation", SPARSE)
def test_a_quarter_of_what_alternates_draws_masses_and_they_fill_the_range(alternation: Alternation) -> None:
    options = plan(alternation=alternation, masses=MassRange(0.6, 0.9))
    turns = [(turn // 20, turn % 20) for turn in range(2000)]
    points = [point_in_step(*turn, 20, PATCHES, options) for turn in turns]
    drawn = np.array([point.mass for point in points if point is not None and point.min_keep < point.max_keep])
    assert len(drawn) == 500
    # A uniform draw's mean is 0.75 with a standard error of 0.0039.
    assert abs(float(drawn.mean()) - 0.75) < 0.02
    assert float(drawn.min()) < 0.61
    assert float(drawn.max()) > 0.89


@pytest.mark.parametrize("masses", [None, MassRange()])
@pytest.mark.parametrize("alternation", SPARSE)
def test_another_seed_draws_others(alternation: Alternation, masses: MassRange | None) -> None:
    def points(seed: int) -> list[OperatingPoint | None]:
        options = plan(alternation=alternation, masses=masses, seed=seed)
        found = [point_in_step(1, step, STEPS, PATCHES, options) for step in range(STEPS)]
        found = [point for point in found if point is not None]
        return found if masses is None else found[1::2]

    assert points(0) == points(0)
    assert points(0) != points(1)
    assert len(set(points(0))) > 10


@pytest.mark.parametrize("masses", [None, MassRange()])
def test_every_epoch_draws_anew(masses: MassRange | None) -> None:
    first = 1 if masses is None else 3
    plans = [
        tuple(point_in_step(epoch, step, STEPS, PATCHES, plan(masses=masses)) for step in range(first, 40, 4))
        for epoch in range(5)
    ]
    assert len(set(plans)) == 5


def test_a_range_of_one_density_or_mass_is_that() -> None:
    options = plan(densities=DensityRange(0.5, 0.5), masses=MassRange(0.9, 0.9))
    points = [point_in_step(0, step, STEPS, 100, options) for step in range(8)]
    density, mass = OperatingPoint(1.0, 50, 50), OperatingPoint(0.9, 1, 100)
    assert points == [None, density, None, mass] * 2


@pytest.mark.parametrize("of_epoch", [1, 2, 3, 5, 100])
def test_batches_alternate_over_the_whole_training(of_epoch: int) -> None:
    """An epoch of an odd number of steps begins with what the one before did not end with."""
    turns = [(epoch, step) for epoch in range(6) for step in range(of_epoch)]
    points = [point_in_step(*turn, of_epoch, PATCHES, plan(masses=MassRange())) for turn in turns]
    assert [point is not None for point in points] == [bool(index % 2) for index in range(len(turns))]
    by_mass = [point is not None and point.mass < 1 for point in points]
    assert by_mass == [index % 4 == 3 for index in range(len(turns))]


@pytest.mark.parametrize(("epoch", "step", "kept"), [(0, 1, 129), (0, 99, 99), (3, 1, 166), (24, 51, 107)])
def test_the_draws_of_a_seed_stay_what_they_are(epoch: int, step: int, kept: int) -> None:
    """Published figures are those of trainings that drew these; neither the steps of an epoch nor anything else may."""
    for of_epoch in (STEPS, 2 * STEPS):
        assert point_in_step(epoch, step, of_epoch, PATCHES, plan()) == OperatingPoint(1.0, kept, kept)


@pytest.mark.parametrize(
    ("epoch", "step", "mass"),
    [(0, 3, 0.7104654338852), (0, 99, 0.7802200659221), (3, 7, 0.9034813771487), (24, 51, 0.7983184840192)],
)
def test_the_masses_of_a_seed_stay_what_they_are(epoch: int, step: int, mass: float) -> None:
    for of_epoch in (STEPS, 2 * STEPS):
        point = point_in_step(epoch, step, of_epoch, PATCHES, plan(masses=MassRange()))
        assert point is not None
        assert (point.min_keep, point.max_keep) == (1, PATCHES)
        assert point.mass == pytest.approx(mass, abs=1e-12)


@pytest.mark.parametrize(
    ("alternation", "epochs", "of_epoch", "advised"),
    [(Alternation.BATCH, 1, 1, "--batch"), (Alternation.EPOCH, 1, 50, "--alternation batch")],
)
def test_a_training_without_a_sparse_step_is_refused(
    alternation: Alternation, epochs: int, of_epoch: int, advised: str
) -> None:
    with pytest.raises(InvalidArgument, match="has no sparse one") as refused:
        check_alternates(epochs, of_epoch, alternation)
    assert all(word in refused.value.hint for word in ("--epochs", "never", advised))


@pytest.mark.parametrize(
    ("alternation", "epochs", "of_epoch"),
    [(Alternation.BATCH, 1, 3), (Alternation.BATCH, 2, 1), (Alternation.EPOCH, 3, 1)],
)
def test_a_training_that_ends_before_it_draws_a_mass_is_refused(
    alternation: Alternation, epochs: int, of_epoch: int
) -> None:
    with pytest.raises(InvalidArgument, match="the second sparse step is the first to draw a mass") as refused:
        check_alternates(epochs, of_epoch, alternation, MassRange())
    assert "masses" in refused.value.hint


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(Alternation))
def test_what_is_not_refused_draws_what_it_is_to_draw(epochs: int, of_epoch: int, alternation: Alternation) -> None:
    options = plan(alternation=alternation, masses=MassRange())
    turns = [(epoch, step) for epoch in range(epochs) for step in range(of_epoch)]
    points = [point_in_step(*turn, of_epoch, PATCHES, options) for turn in turns]
    if alternation is Alternation.NEVER or any(point is not None and point.mass < 1 for point in points):
        check_alternates(epochs, of_epoch, alternation, options.masses)
    else:
        with pytest.raises(InvalidArgument):
            check_alternates(epochs, of_epoch, alternation, options.masses)


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(Alternation))
def test_what_is_refused_is_what_would_have_no_sparse_step(
    epochs: int, of_epoch: int, alternation: Alternation
) -> None:
    turns = [(epoch, step) for epoch in range(epochs) for step in range(of_epoch)]
    points = [point_in_step(*turn, of_epoch, PATCHES, plan(alternation=alternation)) for turn in turns]
    if any(point is not None for point in points) or alternation is Alternation.NEVER:
        check_alternates(epochs, of_epoch, alternation)
    else:
        with pytest.raises(InvalidArgument):
            check_alternates(epochs, of_epoch, alternation)


@pytest.mark.parametrize(("images", "batch", "processes"), [(15, 8, 2), (3, 8, 2), (0, 1, 2)])
def test_images_that_make_no_batch_for_each_process(images: int, batch: int, processes: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_batches(images, batch, processes)
    assert refused.value.message == f"{images} images make no batch of {batch} on {processes} processes"
    assert "--batch" in refused.value.hint


@pytest.mark.parametrize(("images", "batch", "processes"), [(16, 8, 2), (15, 16, 1), (3, 8, 1)])
def test_images_that_make_a_batch(images: int, batch: int, processes: int) -> None:
    check_batches(images, batch, processes)
