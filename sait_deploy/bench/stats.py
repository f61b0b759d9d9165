"""Statistics over benchmark samples: pure NumPy, the same result for the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sait_deploy.bench.results import BenchRow, Interval, Stages
from sait_deploy.errors import InvalidArgument

_CHUNK: Final = 1 << 20


class Summary(NamedTuple):
    """A row's times in milliseconds, and images per second at the median."""

    p50_ms: float
    p99_ms: float
    images_per_second: float


def _samples(seconds: Sequence[float], name: str) -> NDArray[np.float64]:
    values = np.asarray(seconds, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InvalidArgument(f"{name} is not a non-empty list of times: its shape is {values.shape}")
    wrong = values[~(np.isfinite(values) & (values > 0))]
    if wrong.size:
        raise InvalidArgument(f"{name} holds {wrong[0]} s, which is no duration", "times are finite and above zero")
    return values


def paired_ratio(
    dense: Sequence[float], other: Sequence[float], *, batches: int = 1, seed: int = 0, resamples: int = 2000
) -> Interval:
    """Returns how many times as fast ``other`` is, with a 95 % percentile bootstrap interval over rounds.

    Of one batch it is the median of dense[i] / other[i]. Of several that take turns, each batch has such a median, and
    they are weighed as total times would: with d the batch's median dense time and r its ratio, sum(d) / sum(d / r). So
    a batch that keeps many tokens counts for the time that it takes.

    Args:
        dense: seconds, one per round.
        other: seconds; sample i was taken in the same round as dense[i], so that drift common to both cancels.
        batches: different batches of images; round i ran batch i modulo that many.
        seed: of the resampling; the same samples and seed give the same interval.
        resamples: how often the rounds are drawn again, with replacement.

    Returns:
        An interval that contains its median; above 1 means that ``other`` is faster.

    Raises:
        InvalidArgument: the lengths differ, nothing was given, a time is not positive, or resamples or batches is
            below 1.
    """
    drawn = _ratios(dense, other, batches, np.random.default_rng(seed), resamples)
    return _interval(drawn.ratio, drawn.resampled)


class PairedTimes(NamedTuple):
    """Times of two that took turns.

    Attributes:
        above: seconds of the one that is divided.
        below: seconds of the other; sample i was taken in the same round as above[i].
        batches: different batches of images; round i ran batch i modulo that many.
    """

    above: Sequence[float]
    below: Sequence[float]
    batches: int = 1


def chained_ratio(links: Sequence[PairedTimes], *, seed: int = 0, resamples: int = 2000) -> Interval:
    """Returns the product of ratios, each as :func:`paired_ratio` has it, with a 95 % percentile bootstrap interval.

    So two that never took turns are compared by way of a third that took turns with both, and no drift between the
    measurements is in it.

    Args:
        links: what took turns.
        seed: of the resampling.
        resamples: how often the rounds of each link are drawn again.

    Raises:
        InvalidArgument: as :func:`paired_ratio`.
    """
    draw = np.random.default_rng(seed)
    drawn = [_ratios(link.above, link.below, link.batches, draw, resamples) for link in links]
    return _interval(
        math.prod((one.ratio for one in drawn), start=1.0), np.prod([one.resampled for one in drawn], axis=0)
    )


class _Drawn(NamedTuple):
    """A ratio, and the same of rounds drawn again, float64 [resamples]."""

    ratio: float
    resampled: NDArray[np.float64]


def _ratios(
    dense: Sequence[float], other: Sequence[float], batches: int, draw: np.random.Generator, resamples: int
) -> _Drawn:
    above, below = _samples(dense, "dense"), _samples(other, "other")
    if above.size != below.size:
        raise InvalidArgument(
            f"{above.size} dense samples cannot be paired with {below.size}", "take one sample of each per round"
        )
    if min(resamples, batches) < 1:
        raise InvalidArgument(f"{resamples} resamples of {batches} batches cannot be drawn", "give numbers from 1")
    turns = [(above[start::batches], below[start::batches]) for start in range(min(batches, above.size))]
    medians = np.array([np.median(dense_times / times) for dense_times, times in turns])
    resampled = np.stack([_resampled_medians(dense_times / times, resamples, draw) for dense_times, times in turns])
    weights = np.array([np.median(dense_times) for dense_times, _ in turns])
    return _Drawn(float(_over_totals(medians[:, None], weights)[0]), _over_totals(resampled, weights))


def _interval(ratio: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(min(float(low), ratio), ratio, max(float(high), ratio))


def _over_totals(ratios: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Combines ratios of batches [K, n], whose dense times are weights [K], to ratios of total times [n]."""
    combined: NDArray[np.float64] = weights.sum() / (weights[:, None] / ratios).sum(axis=0)
    return ratios[0] if len(ratios) == 1 else combined


def _resampled_medians(ratios: NDArray[np.float64], resamples: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Returns medians of samples drawn again with replacement, float64 [resamples]."""
    medians = np.empty(resamples)
    step = max(1, _CHUNK // ratios.size)
    for start in range(0, resamples, step):
        part = medians[start : start + step]
        part[:] = np.median(ratios[draw.integers(0, ratios.size, (part.size, ratios.size))], axis=1)
    return medians


def summarise(seconds: Sequence[float], batch: int, batches: int = 1) -> Summary:
    """Returns p50 and p99 in milliseconds, and images per second at the median; of several batches, at their medians.

    The p99 is a time that occurred, the next one at or above the quantile: of fewer than 100 samples, the slowest.

    Raises:
        InvalidArgument: no samples, a time that is not positive, or a batch below 1.
    """
    values = _samples(seconds, "seconds")
    if batch < 1:
        raise InvalidArgument(f"batch {batch} is below 1")
    p50 = float(np.median(values))
    p99 = float(np.quantile(values, 0.99, method="higher"))
    turns = [float(np.median(values[start::batches])) for start in range(min(batches, values.size))]
    return Summary(p50 * 1e3, p99 * 1e3, batch * len(turns) / sum(turns))


def relative_spread(seconds: Sequence[float]) -> float:
    """Returns (p90 - p10) / p50.

    Raises:
        InvalidArgument: no samples, or a time that is not positive.
    """
    p10, p50, p90 = np.quantile(_samples(seconds, "seconds"), (0.1, 0.5, 0.9))
    return float((p90 - p10) / p50)


def over_own_batch(row: BenchRow) -> list[float]:
    """Returns a row's samples over the median of their batch: batches differ in what they keep, and so in time."""
    if len(row.seconds) < 2 * row.batches:
        return list(row.seconds)  # hardly two samples a batch: its median would say nothing of it
    medians = [float(np.median(row.seconds[start :: row.batches])) for start in range(row.batches)]
    return [sample / medians[i % row.batches] for i, sample in enumerate(row.seconds)]


def break_even_batch(rows: Sequence[BenchRow], variant_id: str) -> int | None:
    """Returns the smallest batch from which on the variant beats dense at every measured batch.

    It beats dense where the low end of its speed-up's interval exceeds 1.

    Returns:
        None where it does not beat dense at the largest measured batch.

    Raises:
        InvalidArgument: the variant has no row with a speed-up.
    """
    measured = [(row.batch, row.speedup) for row in rows if row.variant == variant_id and row.speedup is not None]
    if not measured:
        raise InvalidArgument(f"no row compares {variant_id!r} with dense", "give the id of a measured variant")
    found: int | None = None
    for batch, speedup in sorted(measured, key=lambda pair: pair[0], reverse=True):
        if speedup.low <= 1:
            break
        found = batch
    return found


def make_row(
    *,
    batch: int,
    variant: str,
    seconds: Sequence[float],
    dense_seconds: Sequence[float] | None,
    kept: Sequence[int],
    macs: int,
    dense_macs: int,
    batches: int = 1,
    stages: Stages | None = None,
    seed: int = 0,
) -> BenchRow:
    """Builds a row from what was measured.

    Args:
        batch: images per request.
        variant: the variant's id.
        seconds: one sample per round.
        dense_seconds: the baseline's samples of the same rounds; None where this row is the baseline, or it has none.
        kept: patch tokens kept, one per image.
        macs: mean multiply-accumulates per image.
        dense_macs: those of the baseline.
        batches: different batches of images that the rounds took in turn.
        stages: where the time goes, where that is known.
        seed: of the interval's resampling.

    Raises:
        InvalidArgument: samples that cannot be used or paired, no kept counts, or MACs or a batch below 1.
    """
    if min(macs, dense_macs) < 1:
        raise InvalidArgument(f"{min(macs, dense_macs)} multiply-accumulates are below 1")
    counts = np.asarray(kept)
    if counts.ndim != 1 or counts.size == 0 or counts.min() < 0:
        raise InvalidArgument(f"kept is not a non-empty list of token counts: its shape is {counts.shape}")
    summary = summarise(seconds, batch, batches)
    mac_ratio = dense_macs / macs
    speedup = None if dense_seconds is None else paired_ratio(dense_seconds, seconds, batches=batches, seed=seed)
    return BenchRow(
        batch=batch,
        variant=variant,
        seconds=tuple(float(sample) for sample in seconds),
        batches=batches,
        kept_mean=float(counts.mean()),
        kept_p95=float(np.quantile(counts, 0.95)),
        kept_max=int(counts.max()),
        macs=macs,
        p50_ms=summary.p50_ms,
        p99_ms=summary.p99_ms,
        images_per_second=summary.images_per_second,
        speedup=speedup,
        mac_ratio=mac_ratio,
        share=None if speedup is None else speedup.median / mac_ratio,
        stages=stages,
    )
