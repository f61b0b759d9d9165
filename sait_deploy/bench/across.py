"""What compares groups: a last pass in which dense of all groups take turns, and every point over the fastest of them.

Groups are measured one after the other, and a machine's speed drifts between them. Dense of each group takes turns
with the group's points, and in the last pass with dense of the other groups; the product of the two ratios compares a
point with the fastest dense of all, and holds one model of each group in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from sait_deploy.bench.clock import MeasureOptions, measure
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.results import BenchRow, DenseTimes, OverFastest, Variant
from sait_deploy.bench.rows import made_ready, timed_images
from sait_deploy.bench.stats import PairedTimes, chained_ratio, paired_ratio
from sait_deploy.bench.variants import RunnableVariant
from sait_deploy.errors import SaitError
from sait_deploy.images.dataset import Dataset
from sait_deploy.reports.table import Note, Severity
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.system.progress import Progress

FEWEST_GROUPS: Final = 2
_SETTLING_SECONDS: Final = 0.02

Call = Callable[[], float | None]


def time_dense_together(
    groups: Sequence[tuple[GroupPlan, RunnableVariant]],
    threads: int | None,
    dataset: Dataset,
    batches: Sequence[int],
    options: MeasureOptions,
    progress: Progress,
) -> tuple[list[DenseTimes], list[Note]]:
    """Times dense of all groups in turn.

    Args:
        groups: each with its dense baseline.
        threads: threads within one operator; None for all processors.
        dataset: the images.
        batches: images per request.
        options: what the clock covers, and for how long.
        progress: reports each batch size.

    Returns:
        Times of those that ran beside another, and notes on those that did not.

    Raises:
        ImageError: an image cannot be read.
    """
    notes: list[Note] = []
    opened: list[tuple[str, RunnableVariant, Runner]] = []
    for plan, dense in groups:
        try:
            runner = load(dense.artifact, plan.runtime, RunOptions(threads=threads, precision=plan.asked))
            opened.append((plan.name, dense, runner))
        except SaitError as error:
            notes.append(_apart(plan.name, error.message))
    found: list[DenseTimes] = []
    for batch in batches:
        ready = []
        images = timed_images(opened[0][1].artifact.manifest, dataset, batch) if opened else []
        for name, variant, runner in opened:
            try:
                ready.append(made_ready(variant, runner, images, options.timing))
            except SaitError as error:
                notes.append(_apart(f"{name} at batch {batch}", error.message))
        if len(ready) < FEWEST_GROUPS:
            continue
        progress(f"batch {batch}: dense of {len(ready)} groups in turn, {options.duration:g} s")
        seconds = measure({one.variant.id: list(map(_settled, one.calls)) for one in ready}, options)
        found += [DenseTimes(batch, name, tuple(times), len(images)) for name, times in seconds.items()]
    return found, notes


def _settled(call: Call) -> Call:
    """Returns a call that runs over and over for a while, and gives the seconds of its last run.

    Threads of the runtime before it may still spin, and caches hold the other's weights: what ran after torch took up
    to half as long again.
    """

    def run() -> float:
        until = time.perf_counter() + _SETTLING_SECONDS
        call()
        while time.perf_counter() < until:
            call()
        before = time.perf_counter()
        own = call()
        return time.perf_counter() - before if own is None else own

    return run


def _apart(what: str, why: str) -> Note:
    return Note(f"{what} is not compared with the other groups: {why}", Severity.WARNING)


def over_fastest(
    variants: Sequence[Variant], rows: Sequence[BenchRow], together: Sequence[DenseTimes]
) -> list[OverFastest]:
    """Returns every row that can be compared with the fastest dense of all, at each batch size, in the rows' order.

    Args:
        variants: of all groups.
        rows: of all groups.
        together: dense of all groups in turn.
    """
    groups = {variant.id: variant.group for variant in variants}
    baselines = {variant.group: variant.id for variant in variants if variant.baseline}
    times = {(one.batch, one.variant): one for one in together}
    seconds = {(row.batch, row.variant): row.seconds for row in rows}
    fastest = {batch: _fastest([one for one in together if one.batch == batch]) for batch, _ in times}
    found = []
    for row in rows:
        dense = baselines[groups[row.variant]]
        if (row.batch, dense) not in times or (row.batch, dense) not in seconds:
            continue
        first, own = fastest[row.batch], times[row.batch, dense]
        links = []
        if own is not first:
            links.append(PairedTimes(first.seconds, own.seconds, own.batches))
        if row.variant != dense:
            links.append(PairedTimes(seconds[row.batch, dense], row.seconds, row.batches))
        found.append(OverFastest(row.batch, row.variant, first.variant, chained_ratio(links)))
    return found


def _fastest(of: Sequence[DenseTimes]) -> DenseTimes:
    """Returns the one that is the fastest, each compared with the first, round by round."""
    return max(of, key=lambda one: paired_ratio(of[0].seconds, one.seconds, batches=one.batches).median)
