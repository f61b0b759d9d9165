"""The statistics against known answers, against what must hold of any samples, and against simulated truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.bench.doubts import FEWEST_ROUNDS, row_notes
from sait_deploy.bench.results import BenchRow, Interval
from sait_deploy.bench.stats import (
    PairedTimes,
    break_even_batch,
    chained_ratio,
    make_row,
    paired_ratio,
    relative_spread,
    summarise,
)
from sait_deploy.errors import InvalidArgument
from sait_deploy.reports.table import Severity

SECONDS = st.floats(1e-6, 1e3)
PAIRS = st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=30)


def test_equal_rounds_give_an_interval_without_width() -> None:
    assert paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == Interval(2.0, 2.0, 2.0)


def test_the_ratio_is_taken_by_round_and_not_of_the_medians() -> None:
    # Medians 3 and 3 would give 1; the ratios are 0.5, 0.5 and 5.
    assert paired_ratio([1.0, 3.0, 10.0], [2.0, 6.0, 2.0]).median == 0.5
    assert paired_ratio([1.0, 3.0, 10.0], [2.0, 6.0, 2.0]).high == 5.0


def test_drift_that_both_share_does_not_widen_the_interval() -> None:
    drift = np.linspace(1, 3, 50)
    found = paired_ratio((drift * 0.3).tolist(), (drift * 0.2).tolist())
    assert (found.low, found.median, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_the_interval_covers_the_true_median_about_95_times_in_100() -> None:
    draw = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        other = draw.lognormal(0, 0.1, 25)
        dense = 1.3 * other * draw.lognormal(0, 0.2, 25)
        found = paired_ratio(dense.tolist(), other.tolist(), seed=trial, resamples=200)
        hits += found.low <= 1.3 <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_more_samples_than_are_resampled_at_once_give_a_narrow_interval() -> None:
    draw = np.random.default_rng(5)
    dense = draw.lognormal(0, 0.1, 30_000)
    found = paired_ratio(dense.tolist(), [0.5] * dense.size, resamples=50)
    assert found.low < found.median < found.high
    assert found.high - found.low < 0.02


@settings(deadline=None, max_examples=40)
@given(pairs=PAIRS, seed=st.integers(0, 2**32), resamples=st.integers(1, 50))
def test_an_interval_contains_its_median_and_lies_within_the_ratios(
    pairs: list[tuple[float, float]], seed: int, resamples: int
) -> None:
    dense, other = zip(*pairs, strict=True)
    found = paired_ratio(dense, other, seed=seed, resamples=resamples)
    ratios = [a / b for a, b in pairs]
    assert min(ratios) <= found.low <= found.median <= found.high <= max(ratios)
    assert found == paired_ratio(dense, other, seed=seed, resamples=resamples)


@settings(deadline=None, max_examples=40)
@given(pairs=PAIRS, factor=st.floats(1e-3, 1e3))
def test_a_slower_dense_scales_the_interval(pairs: list[tuple[float, float]], factor: float) -> None:
    dense, other = zip(*pairs, strict=True)
    once = paired_ratio(dense, other, resamples=100)
    scaled = paired_ratio([factor * sample for sample in dense], other, resamples=100)
    assert dataclasses.astuple(scaled) == pytest.approx([factor * end for end in dataclasses.astuple(once)], rel=1e-9)


def test_another_seed_resamples_differently() -> None:
    dense = np.random.default_rng(0).lognormal(0, 0.3, 40).tolist()
    assert len({paired_ratio(dense, [1.0] * 40, seed=seed, resamples=200).low for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("dense", "other"),
    [
        ([], []),
        ([1.0], [1.0, 2.0]),
        ([1.0, 0.0], [1.0, 1.0]),
        ([1.0, 1.0], [1.0, -1.0]),
        ([math.nan], [1.0]),
        ([math.inf], [1.0]),
    ],
)
def test_samples_that_are_no_pairs_of_durations_are_refused(dense: list[float], other: list[float]) -> None:
    with pytest.raises(InvalidArgument):
        paired_ratio(dense, other)


def test_no_resamples_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="0 resamples"):
        paired_ratio([1.0], [1.0], resamples=0)


def test_summary_of_known_samples() -> None:
    assert summarise([0.001 * n for n in range(1, 102)], 4) == pytest.approx((51.0, 100.0, 4 / 0.051))


def test_p99_of_few_samples_is_the_slowest_that_occurred() -> None:
    assert summarise([0.1, 0.1, 0.1, 0.9], 1).p99_ms == pytest.approx(900)


@given(st.lists(SECONDS, min_size=1, max_size=50), st.integers(1, 1024))
def test_percentiles_are_ordered_and_p99_is_a_sample(seconds: list[float], batch: int) -> None:
    found = summarise(seconds, batch)
    assert found.p50_ms <= found.p99_ms
    assert found.p99_ms in [sample * 1e3 for sample in seconds]
    assert found.images_per_second * found.p50_ms == pytest.approx(batch * 1e3)


@pytest.mark.parametrize(("seconds", "batch"), [([], 1), ([1.0], 0), ([0.0], 1)])
def test_a_summary_of_nothing_is_refused(seconds: list[float], batch: int) -> None:
    with pytest.raises(InvalidArgument):
        summarise(seconds, batch)


def test_relative_spread_of_known_samples() -> None:
    assert relative_spread([float(n) for n in range(1, 12)]) == pytest.approx((10 - 2) / 6)
    assert relative_spread([5.0] * 9) == 0


def row(batch: int, low: float, *, variant: str = "v") -> BenchRow:
    """Makes a row that differs from others only in what break-even looks at."""
    return BenchRow(batch, variant, (1.0,), 1, 1, 1, 1, 1, 1, 1, 1, Interval(low, low + 0.1, low + 0.2), 1.5, 1, None)


@pytest.mark.parametrize(
    ("lows", "wanted"),
    [
        ({1: 1.2, 8: 1.3, 32: 1.1}, 1),
        ({1: 0.9, 8: 1.3, 32: 1.1}, 8),
        ({1: 1.2, 8: 0.99, 32: 1.1}, 32),
        ({1: 1.2, 8: 1.2, 32: 0.95}, None),
        ({1: 1.0}, None),
        ({32: 1.1, 1: 0.9, 8: 1.1}, 8),
    ],
)
def test_break_even_holds_at_every_larger_batch(lows: dict[int, float], wanted: int | None) -> None:
    others = [row(batch, 0.5, variant="other") for batch in lows]
    assert break_even_batch([*others, *(row(batch, low) for batch, low in lows.items())], "v") == wanted


def test_break_even_of_what_was_not_compared_is_refused() -> None:
    baseline = dataclasses.replace(row(1, 1.0, variant="dense"), speedup=None)
    for variant in ("dense", "missing"):
        with pytest.raises(InvalidArgument, match=variant):
            break_even_batch([baseline], variant)


def made(
    seconds: Sequence[float],
    dense: Sequence[float] | None,
    *,
    kept: Sequence[int] = (4,),
    macs: int = 50,
    dense_macs: int = 100,
    batch: int = 2,
    batches: int = 1,
) -> BenchRow:
    """Makes a row of a variant that does half the work."""
    return make_row(
        batch=batch,
        variant="v",
        seconds=seconds,
        dense_seconds=dense,
        kept=kept,
        macs=macs,
        dense_macs=dense_macs,
        batches=batches,
    )


def test_a_row_of_known_samples() -> None:
    found = made([0.2] * 8, [0.3] * 8, kept=list(range(101)), batches=4)
    assert (found.batch, found.variant, found.seconds) == (2, "v", (0.2,) * 8)
    assert (found.batches, found.macs) == (4, 50)
    assert (found.kept_mean, found.kept_p95, found.kept_max) == (50, 95, 100)
    assert (found.p50_ms, found.p99_ms, found.images_per_second) == pytest.approx((200, 200, 10))
    assert found.speedup is not None
    assert found.speedup.median == pytest.approx(1.5)
    assert (found.mac_ratio, found.share) == pytest.approx((2, 0.75))


def test_the_share_is_of_the_median_speed_up() -> None:
    assert made([0.2] * 7, [0.2, 0.25, 0.28, 0.3, 0.5, 0.6, 0.7]).share == pytest.approx(0.75)


def test_the_baseline_is_not_compared_with_itself() -> None:
    found = made([0.2] * 8, None, macs=100)
    assert (found.speedup, found.share, found.mac_ratio) == (None, None, 1)


@pytest.mark.parametrize("changed", [{"kept": []}, {"kept": [-1]}, {"macs": 0}, {"dense_macs": 0}, {"batch": 0}])
def test_a_row_of_impossible_figures_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        made([0.2], [0.3], **changed)  # type: ignore[arg-type]


def test_a_steady_row_earns_no_warning() -> None:
    assert row_notes([(made([0.2] * 20, [0.3] * 20), "half")]) == ()
    assert row_notes([(made([0.2] * 20, None), "dense")]) == ()


@pytest.mark.parametrize(
    ("seconds", "dense", "phrase"),
    [
        ([0.2, 0.3] * 10, [0.3, 0.45] * 10, "spread widely"),
        ([0.2] * 20, [0.28, 0.32] * 10, "speed-up is known to within"),
        ([0.2] * (FEWEST_ROUNDS - 1), [0.3] * (FEWEST_ROUNDS - 1), "rounds are too few"),
        ([0.2] * 20, [0.43] * 20, "times the MAC ratio"),
    ],
)
def test_each_doubt_earns_its_own_warning(seconds: list[float], dense: list[float], phrase: str) -> None:
    (note,) = row_notes([(made(seconds, dense), "half")])
    assert note.severity is Severity.WARNING
    assert note.text.startswith("batch 2, half: ")
    assert phrase in note.text


def test_many_rows_with_one_doubt_earn_one_warning_which_names_the_worst() -> None:
    noisy, worse = made([0.2, 0.3] * 10, [0.3, 0.45] * 10), made([0.2, 0.6] * 10, [0.3, 0.9] * 10)
    (note,) = row_notes([(noisy, "half"), (worse, "third"), (noisy, "quarter")])
    assert note.text.startswith("3 rows, most of all batch 2, third: times spread widely")


@pytest.mark.parametrize("batches", [2, 3, 8])
def test_batches_that_differ_from_each_other_do_not_spread(batches: int) -> None:
    """One that keeps more tokens takes longer: that is no noise. Taken for one batch, the same samples are."""
    seconds = [0.1 * (1 + turn % batches) for turn in range(40)]
    dense = [1.5 * sample for sample in seconds]
    assert row_notes([(made(seconds, dense, batches=batches), "v")]) == ()
    (note,) = row_notes([(made(seconds, dense), "v")])
    assert "spread widely" in note.text


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_the_spread_told_is_that_of_samples_over_their_batch_s_median(batches: int) -> None:
    draw = np.random.default_rng(batches)
    seconds = [float((1 + turn % batches) * draw.lognormal(0, 0.5)) for turn in range(60)]
    medians = [np.median(seconds[start::batches]) for start in range(batches)]
    own = relative_spread([sample / medians[turn % batches] for turn, sample in enumerate(seconds)])
    (note,) = row_notes([(made(seconds, None, batches=batches), "v")])
    assert f"p90 - p10 is {own:.0%} of the median" in note.text


def test_with_few_rounds_noise_is_told_though_batches_differ() -> None:
    """Ten rounds of eight batches leave most with one sample, which would always be its own median."""
    seconds = np.random.default_rng(0).lognormal(0, 1, 10).tolist()
    (note,) = row_notes([(made(seconds, None, batches=8), "v")])
    assert "spread widely" in note.text


def test_batches_that_take_turns_are_weighed_as_total_times_are() -> None:
    """One heavy batch among light ones: the median of all rounds would pass it over."""
    dense, other = [1.0, 1.0, 1.0, 1.0] * 5, [0.25, 0.25, 0.25, 1.0] * 5
    found = paired_ratio(dense, other, batches=4)
    assert dataclasses.astuple(found) == pytest.approx((4 / 1.75,) * 3)
    assert paired_ratio(dense, other).median == pytest.approx(4.0)
    row = made(other, dense, batches=4)
    assert row.images_per_second == pytest.approx(row.batch * 4 / 1.75)


def test_a_batch_s_own_rounds_are_resampled() -> None:
    draw = np.random.default_rng(0)
    dense = [1.0] * 40
    other = [(0.2 if turn % 2 else 0.8) * float(draw.lognormal(0, 0.01)) for turn in range(40)]
    found = paired_ratio(dense, other, batches=2)
    assert found.low > 1.95 and found.high < 2.05


@given(st.lists(PAIRS, min_size=0, max_size=3))
@settings(max_examples=50)
def test_a_chain_is_the_product_of_its_links(links: list[list[tuple[float, float]]]) -> None:
    paired = [PairedTimes([a for a, _ in link], [b for _, b in link]) for link in links]
    found = chained_ratio(paired, resamples=50)
    wanted = math.prod(paired_ratio(link.above, link.below, resamples=1).median for link in paired)
    assert found.median == pytest.approx(wanted, rel=1e-9)
    assert found.low <= found.median <= found.high


def test_a_chain_of_steady_links_has_no_width_and_drift_between_them_is_not_in_it() -> None:
    first = PairedTimes([2.0, 2.0], [1.0, 1.0])
    later = PairedTimes([30.0, 60.0], [10.0, 20.0])  # ten times as slow by then
    assert chained_ratio([first, later]) == Interval(6.0, 6.0, 6.0)
    assert chained_ratio([]) == Interval(1.0, 1.0, 1.0)
