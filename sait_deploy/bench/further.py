"""What a benchmark measures in addition to times, where asked for: memory, and what the machine can do at most."""

from __future__ import annotations

from collections.abc import Sequence

from sait_deploy.bench.machine_results import PeakMemory, ProductRate, Roofline
from sait_deploy.bench.measured import Findings
from sait_deploy.bench.memory import measure_memory
from sait_deploy.bench.options import Also, BenchOptions
from sait_deploy.bench.results import names_of
from sait_deploy.bench.roofline import device_memory_rate, memory_rate, product_rate
from sait_deploy.bench.rows import timed_images
from sait_deploy.errors import SaitError
from sait_deploy.images.dataset import Dataset
from sait_deploy.reports.table import Note, Severity
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.system.progress import Progress


def measure_further(
    measured: Sequence[Findings], dataset: Dataset, options: BenchOptions, progress: Progress
) -> tuple[tuple[PeakMemory, ...] | None, Roofline | None, list[Note]]:
    """Measures what is asked for in addition to times.

    Args:
        measured: the groups.
        dataset: the images.
        options: what is asked for.
        progress: reports each step.

    Returns:
        Peak memory and the roofline, None where they were not asked for, and notes on what could not be measured.

    Raises:
        ImageError: an image cannot be read.
    """
    notes: list[Note] = []
    memory, roofline = None, None
    if Also.MEMORY in options.also:
        memory = tuple(_memory(measured, dataset, options, notes, progress))
    if Also.ROOFLINE in options.also and any(one.rows for one in measured):
        roofline = _roofline(measured, options, notes, progress)
    return memory, roofline, notes


def _memory(
    measured: Sequence[Findings], dataset: Dataset, options: BenchOptions, notes: list[Note], progress: Progress
) -> list[PeakMemory]:
    """Measures every variant at the largest batch size at which it ran."""
    found: list[PeakMemory] = []
    names = names_of([variant for one in measured for variant in one.variants])
    for one in measured:
        for variant in one.runnable:
            sizes = [row.batch for row in one.rows if row.variant == variant.id]
            if not sizes:
                continue
            progress(f"memory of {names[variant.id]} at batch {max(sizes)}, in a process of its own")
            images = timed_images(variant.artifact.manifest, dataset, max(sizes))[0]
            try:
                found.append(measure_memory(one.plan, variant, images, options.threads))
            except SaitError as error:
                text = f"the memory of {names[variant.id]} was not measured: {error.message}"
                notes.append(Note(text, Severity.WARNING))
    return found


def _roofline(measured: Sequence[Findings], options: BenchOptions, notes: list[Note], progress: Progress) -> Roofline:
    rates: dict[tuple[str, str], ProductRate] = {}
    copies: dict[str, float] = {}
    dense = measured[0].dense.artifact.manifest
    for one in measured:
        precision = next((variant.precision for variant in one.variants if variant.precision is not None), None)
        key = one.plan.runtime, precision or ""
        if precision is None or key in rates:
            continue
        progress(f"matrix products on {one.plan.runtime} in {precision}")
        try:
            rates[key] = product_rate(dense, one.plan, RunPrecision(precision), options.threads)
            device = rates[key].device
            if device not in copies and (copied := device_memory_rate(one.plan)) is not None:
                copies[device] = copied
        except SaitError as error:
            notes.append(Note(f"what {one.plan.runtime} can do in {precision} was not timed: {error.message}"))
    progress("memory's rate")
    return Roofline(dense.model.parameters, tuple(rates.values()), memory_rate(options.threads), copies)
