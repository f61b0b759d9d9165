"""Time and memory over image size and batch: DeiT-S dense, at density 0.5 and adaptive, from 196 to 4,096 patch tokens.

    python -m benchmarks.cost_curve
    python -m benchmarks.cost_curve --runtime openvino --precision bf16

Random weights, and numbers of kept tokens forced: half of the tokens on average, with the spread of 25 in 196. Every
form runs in a process of its own, so that its peak memory is its own; the processes of the three forms take turns,
three times where a request of dense takes under two seconds, else once. A request that takes over five seconds is timed
once; a shorter one after a first that is not counted. Models are compiled before anything is measured. A cell that
would take over 60 s a run or over 12 GB, by the next smaller batch and by the next smaller image, is named
and not run. What was measured is kept in the folder, and a run that was interrupted goes on where it ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import THREADS, environment, peak_kib, write
from sait_deploy.artifacts.files import write_whole
from sait_deploy.artifacts.folder import MANIFEST_FILE, Artifact
from sait_deploy.artifacts.manifest import Form, WeightsSource
from sait_deploy.artifacts.manifest_document import from_json
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.cli._render import progress
from sait_deploy.errors import SaitError
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.tokens import dense_macs, kept_at_density, pruned_macs

MODEL: Final = "deit_small_patch16_224"
SIZES: Final = (224, 384, 512, 768, 1024)
BATCHES: Final = (1, 4, 16, 64)
DENSITY: Final = Decimal("0.5")
SPREAD: Final = 25 / 196
FORMS: Final = tuple(form.value for form in (Form.DENSE, Form.DENSITY, Form.ADAPTIVE))
MOST_SECONDS: Final = 60.0
MOST_BYTES: Final = 12 * 10**9
ROUNDS: Final = 3
"""Of cells whose requests take less than this many seconds; of others there is one."""
SHORT_SECONDS: Final = 2.0
_RUNS: Final = 5
"""Of one process, fewer where they take longer than this many seconds together."""
_ENOUGH_SECONDS: Final = 1.0
_LONG_SECONDS: Final = 5.0
"""A first request as long as this is timed: what a runtime prepares in it is a small part."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one form took at one image size and batch size.

    Attributes:
        size: side of the images, pixels.
        batch: images per request.
        form: which.
        seconds: of a request: the median of each process's runs.
        peak_bytes: the most memory that a process held.
        skipped: why it was not run; None where it was.
    """

    size: int
    batch: int
    form: str
    seconds: tuple[float, ...]
    peak_bytes: int
    skipped: str | None = None


def export(sizes: Sequence[int], folder: Path) -> None:
    """Exports the three forms at each image size, where they are not there yet."""
    from benchmarks.graphs import own_forms
    from sait_deploy.models.registry import WeightsRequest, load_model

    for size in sizes:
        if not all((folder / f"{size}px" / form / MANIFEST_FILE).is_file() for form in FORMS):
            model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM), size)
            own_forms(model, DENSITY, folder / f"{size}px", progress)


def compile_all(setting: tuple[str, RunPrecision], sizes: Sequence[int], folder: Path) -> None:
    """Loads every graph once: a runtime that keeps compiled models would compile in the first cell alone."""
    runtime, precision = setting
    for size, form in itertools.product(sizes, FORMS):
        progress(f"loading {form} at {size} px on {runtime} in {precision}")
        with contextlib.suppress(SaitError):  # its cells say why it cannot run
            load(graph_at(size, form, folder), runtime, RunOptions(threads=THREADS, precision=precision))


def graph_at(size: int, form: str, folder: Path) -> Artifact:
    """Returns what was exported; torch is not imported, whose memory would count."""
    place = folder / f"{size}px" / form
    return Artifact(place, from_json((place / MANIFEST_FILE).read_text(encoding="utf-8")))


def run_once(artifact: Artifact, batch: int, options: RunOptions, runtime: str) -> tuple[float, int]:
    """Runs requests in this process and returns the median seconds of one, and this process's peak memory in bytes."""
    runner = load(artifact, runtime, options)
    model = artifact.manifest.model
    images = np.random.default_rng(0).standard_normal((batch, 3, *model.image_size), dtype=np.float32)
    choice = DEFAULT_CHOICE
    if artifact.manifest.form is Form.ADAPTIVE:
        patches = model.geometry.patch_tokens
        counts = KeptDistribution(float(DENSITY) * patches, SPREAD * patches).counts(batch, patches)
        choice = PointChoice(None, 1.0, counts, counts)
    first = _seconds(runner, images, choice)
    seconds = [first] if first > _LONG_SECONDS else []
    while not seconds or (len(seconds) < _RUNS and sum(seconds) < _ENOUGH_SECONDS):
        seconds.append(_seconds(runner, images, choice))
    return median(seconds), 1024 * peak_kib()


def _seconds(runner: Runner, images: NDArray[np.float32], choice: PointChoice) -> float:
    started = time.perf_counter()
    runner.run_at(images, choice)
    return time.perf_counter() - started


def expected(cells: Sequence[Cell], size: int, batch: int, form: str) -> tuple[float, float]:
    """Returns the seconds and bytes that a cell will take at least, by cells that were measured or named before.

    Seconds and memory grow with the batch no slower than half as fast as it, and with the number of tokens at least as
    fast as it; the larger of the two predictions counts. A cell beside one that was not run is not run either.
    """
    known = {(c.size, c.batch): c for c in cells if c.form == form}
    seconds, held = 0.0, 0.0
    for (other_size, other_batch), cell in known.items():
        if other_size > size or other_batch > batch:
            continue
        if cell.skipped is not None:
            return float("inf"), float("inf")
        factor = (size / other_size) ** 2 * batch / other_batch
        seconds = max(seconds, factor * min(cell.seconds))
        # Weights and the interpreter do not grow.
        held = max(held, cell.peak_bytes + (factor - 1) * max(0.0, cell.peak_bytes - _resting(known)))
    return seconds, held


def _resting(known: dict[tuple[int, int], Cell]) -> float:
    """Returns the memory of the smallest cell, which is hardly more than weights and interpreter."""
    first = min(known)
    return float(known[first].peak_bytes)


def measured(
    setting: tuple[str, RunPrecision], sizes: Sequence[int], batches: Sequence[int], folder: Path
) -> list[Cell]:
    """Measures what the folder does not have yet.

    Args:
        setting: runtime and precision.
        sizes: of images, ascending.
        batches: images per request, ascending.
        folder: for graphs and cells.
    """
    runtime, precision = setting
    kept = folder / f"{runtime}-{precision}.json"
    found = [Cell(**one) for one in json.loads(kept.read_text(encoding="utf-8"))] if kept.is_file() else []
    done = {(cell.size, cell.batch) for cell in found}
    for size, batch in itertools.product(sizes, batches):
        if (size, batch) not in done:
            found += _cells(found, size, batch, setting, folder)
            text = json.dumps([dataclasses.asdict(cell) for cell in found], indent=1)
            write_whole(kept, text.encode())
    return [dataclasses.replace(cell, seconds=tuple(cell.seconds)) for cell in found]


def _cells(
    before: Sequence[Cell], size: int, batch: int, setting: tuple[str, RunPrecision], folder: Path
) -> Iterator[Cell]:
    skipped = {}
    for form in FORMS:
        seconds, held = expected(before, size, batch, form)
        if seconds > MOST_SECONDS or held > MOST_BYTES:
            skipped[form] = f"over {MOST_SECONDS:g} s a run or {MOST_BYTES / 1e9:g} GB"
    seconds_of: dict[str, list[float]] = {form: [] for form in FORMS}
    peaks = dict.fromkeys(FORMS, 0)
    for turn in range(ROUNDS):
        if len(skipped) == len(FORMS) or (turn and max(map(max, filter(None, seconds_of.values()))) > SHORT_SECONDS):
            break
        progress(f"{size} px, batch {batch}: round {turn + 1}")
        for form in FORMS:
            if form in skipped:
                continue
            command = [sys.executable, "-m", "benchmarks.cost_curve", "--folder", str(folder), "--runtime", setting[0]]
            cell = ["--precision", setting[1].value, "--cell", str(size), str(batch), form]
            done = subprocess.run([*command, *cell], check=False, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or [""])[-1]
                skipped[form] = f"it failed with exit code {done.returncode}: {last[:200]}"
                continue
            seconds, peak = json.loads(done.stdout)
            seconds_of[form].append(seconds)
            peaks[form] = max(peaks[form], peak)
    for form in FORMS:
        yield Cell(size, batch, form, tuple(seconds_of[form]), peaks[form], skipped.get(form))


def exponents(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Returns for each form and batch size how seconds and memory grow: as which power of the number of tokens."""
    found = []
    for form, batch in itertools.product(FORMS, sorted({cell.batch for cell in cells})):
        own = [cell for cell in cells if (cell.form, cell.batch) == (form, batch) and cell.skipped is None]
        if len(own) < 3:
            continue
        tokens = np.log([cell.size**2 for cell in own])
        seconds = [float(np.log(min(cell.seconds))) for cell in own]
        parts = np.diff(seconds) / np.diff(tokens)
        found.append(
            {
                "form": form,
                "batch": batch,
                "sizes": [cell.size for cell in own],
                "seconds": round(float(np.polyfit(tokens, seconds, 1)[0]), 3),
                "seconds_between_sizes": [round(float(part), 3) for part in parts],
                "peak_memory": round(float(np.polyfit(tokens, np.log([c.peak_bytes for c in own]), 1)[0]), 3),
            }
        )
    return found


def gains(cells: Sequence[Cell], folder: Path) -> list[dict[str, Any]]:
    """Returns how many times as fast as dense each pruned cell is, round by round, its MAC ratio and its memory."""
    known = {(cell.size, cell.batch, cell.form): cell for cell in cells if cell.skipped is None}
    found = []
    for (size, batch, form), cell in known.items():
        dense = known.get((size, batch, Form.DENSE.value))
        if dense is None or form == Form.DENSE.value:
            continue
        ratios = [whole / own for whole, own in zip(dense.seconds, cell.seconds, strict=True)]
        manifest = graph_at(size, Form.DENSITY.value, folder).manifest
        geometry, prune_at = manifest.model.geometry, manifest.prune_at
        assert prune_at is not None
        kept = kept_at_density(DENSITY, geometry.patch_tokens)
        ratio = dense_macs(geometry) / pruned_macs(geometry, prune_at, kept)
        found.append(
            {
                "size": size,
                "batch": batch,
                "form": form,
                "speedup": round(median(ratios), 3),
                "fewest_and_most": [round(min(ratios), 3), round(max(ratios), 3)],
                "mac_ratio": round(ratio, 3),
                "memory_over_dense": round(cell.peak_bytes / dense.peak_bytes, 3),
                "pays": min(ratios) > 1,
            }
        )
    return found


def pays_from(gained: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns for each form and batch size the smallest image from which on pruning pays; None where it never does.

    Args:
        gained: as :func:`gains` returns them.
    """
    found = []
    for form, batch in itertools.product(FORMS[1:], sorted({one["batch"] for one in gained})):
        own = sorted((one["size"], one["pays"]) for one in gained if (one["form"], one["batch"]) == (form, batch))
        paying = list(itertools.takewhile(lambda one: one[1], reversed(own)))
        if own:
            found.append({"form": form, "batch": batch, "size": paying[-1][0] if paying else None})
    return found


def settings_in(folder: Path) -> list[dict[str, Any]]:
    """Returns what the cells in a folder show, for each setting that was measured."""
    found = []
    for place in sorted(folder.glob("*.json")):
        cells = [Cell(**one) for one in json.loads(place.read_text(encoding="utf-8"))]
        gained = gains(cells, folder)
        found.append(
            {
                "setting": place.stem,
                "exponents": exponents(cells),
                "pays_from": pays_from(gained),
                "against_dense": gained,
                "cells": [dataclasses.asdict(one) for one in cells],
            }
        )
    return found


@click.command()
@click.option("--runtime", default="onnxruntime", show_default=True)
@click.option("--precision", type=click.Choice([one.value for one in RunPrecision]), default="fp32", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/cost-curve"), show_default=True)
@click.option("--cell", nargs=3, hidden=True)
def main(runtime: str, precision: str, folder: Path, cell: tuple[str, str, str] | None) -> None:
    """Measure what is not measured yet, and write results/cost_curve.json of all settings in the folder."""
    setting = runtime, RunPrecision(precision)
    if cell is not None:
        size, batch, form = int(cell[0]), int(cell[1]), cell[2]
        options = RunOptions(threads=THREADS, precision=setting[1])
        click.echo(json.dumps(run_once(graph_at(size, form, folder), batch, options, runtime)))
        return
    machine = environment("torch", "timm", "onnxruntime", "openvino")
    export(SIZES, folder)
    compile_all(setting, SIZES, folder)
    measured(setting, SIZES, BATCHES, folder)
    found = {"model": MODEL, "threads": THREADS, "density": str(DENSITY), "settings": settings_in(folder)}
    command = f"python -m benchmarks.cost_curve --runtime {runtime} --precision {precision}"
    click.echo(write("cost_curve", command, found, machine))


if __name__ == "__main__":
    main()
