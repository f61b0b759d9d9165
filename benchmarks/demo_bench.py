"""Times of the demonstration model's points, for comparisons at equal time.

    python -m benchmarks.demo_bench

Exports the densities and masses that ``benchmarks.demo_training`` evaluates, and lets ``sait-deploy bench`` measure
them beside each other: 32 images a request, 2 threads.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import click

from benchmarks.common import RESULTS, THREADS
from benchmarks.demo_runs import load
from benchmarks.demo_training import DENSITIES, MASSES
from sait_deploy import demo
from sait_deploy.cli._render import progress
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model

BATCH: Final = 32
SECONDS: Final = 90
LOWEST: Final = (Decimal("0.03"), Decimal("0.015"))
"""Below what the least mass takes, so that a density of equal time lies between two that were measured."""


def bench_points(
    weights: Path, report: Path, batches: Sequence[int], images: Path | None = None, seconds: int = SECONDS
) -> None:
    """Exports the points that are evaluated, and measures them beside each other in a process of its own.

    Args:
        weights: of the demonstration model.
        report: JSON file of the benchmark.
        batches: images per request.
        images: folder whose images are timed, as masses take as long as what they keep of them; None for what ships.
        seconds: to measure, for each batch size.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(densities=(*DENSITIES, *LOWEST), points=MASSES, output=Path(folder))
        export_model(load(weights), options, progress)
        given = {"--workspace": folder, "--batch": ",".join(map(str, batches)), "--threads": THREADS}
        given |= {"--duration": seconds} | ({} if images is None else {"--images": images})
        words = [str(word) for pair in given.items() for word in pair]
        words += [] if images is None else ["--no-accuracy"]
        command = [sys.executable, "-m", "sait_deploy", "bench", *words, "-o", str(report)]
        subprocess.run(command, check=True)


@click.command()
@click.option("--weights", type=click.Path(path_type=Path), default=demo.WEIGHTS, help="[default: what ships]")
def main(weights: Path) -> None:
    """Measure and write results/demo_bench.json."""
    bench_points(weights, RESULTS / "demo_bench.json", (BATCH,))


if __name__ == "__main__":
    main()
