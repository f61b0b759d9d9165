"""Times of the demonstration model's points, for comparisons at equal time.

    python -m benchmarks.demo_bench

Exports the densities and masses that ``benchmarks.demo_training`` evaluates, and lets ``sait-deploy bench`` measure
them beside each other: 32 images a request, 2 threads.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
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


@click.command()
@click.option("--weights", type=click.Path(path_type=Path), default=demo.WEIGHTS, help="[default: what ships]")
def main(weights: Path) -> None:
    """Measure and write results/demo_bench.json."""
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(densities=(*DENSITIES, *LOWEST), points=MASSES, output=Path(folder))
        export_model(load(weights), options, progress)
        arguments = (
            "bench",
            "--workspace",
            folder,
            "--batch",
            str(BATCH),
            "--threads",
            str(THREADS),
            "--duration",
            str(SECONDS),
        )
        command = [sys.executable, "-m", "sait_deploy", *arguments, "-o", str(RESULTS / "demo_bench.json")]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
