"""The adaptive form of DeiT-S on ONNX Runtime CPU: forced kept counts against flat dense, and what it costs at mass 1.

    python -m benchmarks.adaptive_cpu

Random weights, and counts forced through the limits: what is measured is what packing makes of given counts. Beside the
dense baseline that the toolkit exports stands the same graph with its attention written as exporters write it, heads
laid out by transposes, so that what the layout gains is not taken for pruning's.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import onnx

from benchmarks.common import THREADS, environment, peak_kib, write
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import PointChoice, mass_point
from sait_deploy.bench.clock import MeasureOptions, call_for, measure
from sait_deploy.bench.jsonform import to_json
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.results import BenchRow, Report, Timing
from sait_deploy.bench.run import BenchOptions, bench
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.bench.variants import Sweep
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.dataset import shipped_dataset
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.plugins.onnx_form import operator_function
from sait_deploy.plugins.uniform_attention.spec import SPEC as UNIFORM_ATTENTION
from sait_deploy.runtime import RunOptions, load

MODEL: Final = "deit_small_patch16_224"
BATCHES: Final = (1, 8, 32)
SPREAD, EQUAL = KeptDistribution(105, 25), KeptDistribution(105, 0)
DENSITY: Final = Decimal("0.5357")
TARGET_SHARES: Final = {1: 0.90, 8: 0.97, 32: 0.95}
TARGET_MASS_ONE: Final = {1: 1.06, 8: 1.03, 32: 1.03}
TARGET_EQUAL: Final = 1.03
TARGET_MEMORY: Final = 1.0

_BY_TRANSPOSES: Final = """
    heads = Constant <value_int: int = @num_heads> ()
    front = Constant <value_ints: ints = [0]> ()
    three = Constant <value_ints: ints = [3]> ()
    rest = Constant <value_ints: ints = [-1]> ()
    heads_vector = Unsqueeze (heads, front)
    extent = Shape (slots)
    by_head = Concat <axis: int = 0> (extent, three, heads_vector, rest)
    parts = Reshape (qkv, by_head)
    ordered = Transpose <perm: ints = [2, 0, 3, 1, 4]> (parts)
    query_one, key_one, value_one = Split <axis: int = 0, num_outputs: int = 3> (ordered)
    query = Squeeze (query_one, front)
    key = Squeeze (key_one, front)
    value = Squeeze (value_one, front)
    scale = Constant <value_float: float = @scale> ()
    scaled = Mul (query, scale)
    key_columns = Transpose <perm: ints = [0, 1, 3, 2]> (key)
    scores = MatMul (scaled, key_columns)
    weights = Softmax <axis: int = -1> (scores)
    attended = MatMul (weights, value)
    by_lane = Transpose <perm: ints = [0, 2, 1, 3]> (attended)
    lanes = Flatten <axis: int = 2> (by_lane)
    width = Shape <start: int = 1, end: int = 2> (qkv)
    row_size = Div (width, three)
    by_row = Concat <axis: int = 0> (rest, row_size)
    output = Reshape (lanes, by_row)
"""


def _transposing(dense: Artifact, folder: Path) -> Artifact:
    """Returns the dense artifact with heads laid out by transposes."""
    model = onnx.load(str(dense.model_path))
    kept = [function for function in model.functions if function.name != UNIFORM_ATTENTION.name]
    del model.functions[:]
    model.functions.extend([*kept, operator_function(UNIFORM_ATTENTION, _BY_TRANSPOSES, dense.manifest.opset)])
    folder.mkdir()
    onnx.save(model, str(folder / MODEL_FILE))
    return dataclasses.replace(dense, path=folder)


def _against_transposes(dense: Artifact, folder: Path, seconds: float) -> list[dict[str, Any]]:
    other = _transposing(dense, folder)
    runners = {
        name: load(artifact, "onnxruntime", RunOptions(threads=THREADS))
        for name, artifact in (("dense", dense), ("transposes", other))
    }
    found, photographs = [], shipped_dataset(MODEL).images
    for batch in BATCHES:
        images = runners["dense"].preprocess([photographs[i % len(photographs)] for i in range(batch)])
        answers = [runner.run(images).logits for runner in runners.values()]
        np.testing.assert_allclose(*answers, rtol=0, atol=1e-4)
        calls = {name: [call_for(runner, images, Timing.END_TO_END)] for name, runner in runners.items()}
        samples = measure(calls, MeasureOptions(duration=seconds))
        ratio = paired_ratio(samples["transposes"], samples["dense"])
        found.append({"batch": batch, "transposes_over_dense": dataclasses.asdict(ratio)})
        click.echo(f"batch {batch}: heads by transposes take {ratio.median:.3f} × dense", err=True)
    return found


def _peak_child(path: Path, batch: int, point: str) -> int:
    """Runs an artifact three times in this process and returns its peak resident KiB."""
    runner = load(path, "onnxruntime", RunOptions(threads=THREADS))
    images = np.zeros((batch, 3, 224, 224), dtype=np.float32)
    counts = SPREAD.counts(batch, runner.artifact.manifest.model.geometry.patch_tokens)
    choices = {
        "dense": PointChoice(),
        "mass 1": PointChoice(mass=1.0),
        "kept": PointChoice(None, 1.0, counts, counts),
    }
    for _ in range(3):
        runner.run_at(images, choices[point])
    return peak_kib()


def _peaks(dense: Artifact, adaptive: Artifact) -> list[dict[str, Any]]:
    found = []
    for batch in BATCHES:
        kib = {}
        for point, artifact in (("dense", dense), ("kept", adaptive), ("mass 1", adaptive)):
            command = [sys.executable, "-m", "benchmarks.adaptive_cpu", "--peak", str(artifact.path)]
            done = subprocess.run([*command, str(batch), point], check=True, capture_output=True, text=True)
            kib[point] = int(done.stdout)
        ratios = {point: round(kib[point] / kib["dense"], 3) for point in ("kept", "mass 1")}
        reached = max(ratios.values()) <= TARGET_MEMORY
        found.append({"batch": batch, "peak_kib": kib, "over_dense": ratios, "reached": reached})
        click.echo(f"batch {batch}: peak memory over dense {ratios}", err=True)
    return found


def _rows(report: Report) -> dict[tuple[int, str], BenchRow]:
    labels = {variant.id: variant.label for variant in report.variants}
    return {(row.batch, labels[row.variant]): row for row in report.rows}


def _judged(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Holds what was measured against the targets."""
    rows, shares, equal, mass_one = _rows(report), [], [], []
    for batch in BATCHES:
        spread = rows[batch, "kept 105 ± 25"]
        assert spread.speedup is not None and spread.share is not None
        shares.append(
            {
                "batch": batch,
                "speedup": dataclasses.asdict(spread.speedup),
                "mac_ratio": round(spread.mac_ratio, 4),
                "share": round(spread.share, 4),
                "target": TARGET_SHARES[batch],
                "reached": spread.share >= TARGET_SHARES[batch],
            }
        )
        same, density = rows[batch, "kept 105 ± 0"], rows[batch, f"density {DENSITY}"]
        assert same.kept_mean == density.kept_mean
        over = paired_ratio(same.seconds, density.seconds, batches=same.batches)
        equal.append(_ceiling(batch, "time_over_density", dataclasses.asdict(over), TARGET_EQUAL))
        one = rows[batch, "mass 1"]
        over = paired_ratio(one.seconds, rows[batch, "dense"].seconds, batches=one.batches)
        mass_one.append(_ceiling(batch, "time_over_dense", dataclasses.asdict(over), TARGET_MASS_ONE[batch]))
    return {"spread_counts": shares, "equal_counts": equal, "mass_1": mass_one}


def _ceiling(batch: int, name: str, ratio: dict[str, float], target: float) -> dict[str, Any]:
    return {"batch": batch, name: ratio, "target": target, "reached": ratio["median"] <= target}


@click.command()
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Seconds to measure, per batch size.")
@click.option("--peak", nargs=3, hidden=True)
def main(seconds: float, peak: tuple[str, str, str] | None) -> None:
    """Measure and write results/adaptive_cpu.json."""
    if peak:
        click.echo(_peak_child(Path(peak[0]), int(peak[1]), peak[2]))
        return
    machine = environment("torch", "timm", "onnxruntime")
    model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM))
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions((DENSITY,), (mass_point(1.0),), output=Path(folder) / "artifacts")
        dense, density, adaptive = export_model(model, options, lambda line: click.echo(line, err=True))
        report = bench(
            [dense, density, adaptive],
            BenchOptions(BATCHES, threads=THREADS, duration=seconds, sweep=Sweep((1.0,), (), (SPREAD, EQUAL))),
            lambda line: click.echo(line, err=True),
        )
        judged = _judged(report)
        click.echo(json.dumps(judged, indent=1), err=True)
        transposes = _against_transposes(dense, Path(folder) / "transposes", seconds / 3)
        peaks = _peaks(dense, adaptive)
    found = {
        **judged,
        "against_transposes": transposes,
        "peak_memory": {"target": TARGET_MEMORY, "batches": peaks},
        "report": json.loads(to_json(report)),
    }
    command = f"python -m benchmarks.adaptive_cpu --seconds {seconds:g}"
    click.echo(write("adaptive_cpu", command, found, machine))


if __name__ == "__main__":
    main()
