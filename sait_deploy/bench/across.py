"""What compares groups: a last pass in which one of each takes turns, and every point over the fastest dense of all.

Groups are measured one after the other, and a machine's speed drifts between them. One variant of each group, its dense
where that runs, takes turns with the group's others, and in the last pass with those of the other groups; the product
of the two ratios compares a point with the fastest dense of all, and holds one model of each group in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from sait_deploy.bench.clock import MeasureOptions, measure
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.results import BenchRow, OverFastest, TurnTimes, Variant
from sait_deploy.bench.rows import made_ready, timed_images
from sait_deploy.bench.stats import PairedTimes, chained_ratio, paired_ratio
from sait_deploy.bench.variants import RunnableVariant
from sait_deploy.errors import SaitError
from sait_deploy.images.dataset import Dataset
from sait_deploy.reports.table import Note, Severity
from sait_deploy.runtime import Runner, load
from sait_deploy.system.progress import Progress

FEWEST_GROUPS: Final = 2
_SETTLING_SECONDS: Final = 0.02

Call = Callable[[], float | None]


def time_together(
    groups: Sequence[tuple[GroupPlan, RunnableVariant]],
    threads: int | None,
    dataset: Dataset,
    batches: Sequence[int],
    options: MeasureOptions,
    progress: Progress,
) -> tuple[list[TurnTimes], list[Note]]:
    """Times one variant of each group in turn.

    Args:
        groups: each with its variant.
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
    for plan, variant in groups:
        try:
            runner = load(variant.artifact, plan.runtime, plan.running(threads))
            opened.append((plan.name, variant, runner))
        except SaitError as error:
            notes.append(_apart(plan.name, error.message))
    found: list[TurnTimes] = []
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
        progress(f"batch {batch}: one of each of {len(ready)} groups in turn, {options.duration:g} s")
        seconds = measure({one.variant.id: list(map(_settled, one.calls)) for one in ready}, options)
        found += [TurnTimes(batch, name, tuple(times), len(images)) for name, times in seconds.items()]
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
    variants: Sequence[Variant], rows: Sequence[BenchRow], together: Sequence[TurnTimes]
) -> list[OverFastest]:
    """Returns every row that can be compared with the fastest dense of all, at each batch size, in the rows' order.

    Args:
        variants: of all groups.
        rows: of all groups.
        together: one of each group in turn.
    """
    known = {variant.id: variant for variant in variants}
    links = {(one.batch, known[one.variant].group): one for one in together}
    seconds = {(row.batch, row.variant): row.seconds for row in rows}
    fastest = {}
    for batch in {one.batch for one in together}:
        dense = [one for one in together if one.batch == batch and known[one.variant].baseline]
        if dense:
            fastest[batch] = _fastest(dense)
    found = []
    for row in rows:
        link, first = links.get((row.batch, known[row.variant].group)), fastest.get(row.batch)
        if link is None or first is None or (row.batch, link.variant) not in seconds:
            continue
        chain = []
        if link is not first:
            chain.append(PairedTimes(first.seconds, link.seconds, link.batches))
        if row.variant != link.variant:
            chain.append(PairedTimes(seconds[row.batch, link.variant], row.seconds, row.batches))
        found.append(OverFastest(row.batch, row.variant, first.variant, chained_ratio(chain)))
    return found


def _fastest(dense: Sequence[TurnTimes]) -> TurnTimes:
    """Returns the one that is the fastest, each compared with the first, round by round."""
    return max(dense, key=lambda one: paired_ratio(dense[0].seconds, one.seconds, batches=one.batches).median)
