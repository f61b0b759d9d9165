"""DeiT-S at token densities on ONNX Runtime CPU, against the flat dense baseline and against timm's plain export.

    python -m benchmarks.density_cpu

Random weights: a density keeps the same number of tokens whatever the weights are.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import torch

from benchmarks.common import THREADS, environment, write
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.bench.clock import MeasureOptions, call_for, measure
from sait_deploy.bench.jsonform import to_json
from sait_deploy.bench.results import Timing
from sait_deploy.bench.run import BenchOptions, bench
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.dataset import shipped_dataset
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.onnxruntime import OnnxRuntimeRunner

MODEL: Final = "deit_small_patch16_224"
DENSITIES: Final = (Decimal("0.6"), Decimal("0.5"))
BATCHES: Final = (1, 8, 32)
TARGET_SHARES: Final = {1: 0.88, 8: 0.92, 32: 0.92}


def _plain_export(model: LoadedModel, folder: Path) -> Path:
    """timm's own forward through ``torch.onnx.export`` with nothing but a dynamic batch."""
    example = torch.zeros(2, 3, *model.info.image_size)
    batch = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.onnx.export(
            model.vit, (example,), dynamo=True, opset_version=20, input_names=["images"], output_names=["logits"],
            dynamic_shapes=batch, verbose=False,
        )  # fmt: skip
    assert program is not None
    path = folder / "model.onnx"
    program.save(path)
    return path


def _against_plain(model: LoadedModel, dense: OnnxRuntimeRunner, folder: Path, seconds: float) -> list[dict[str, Any]]:
    _plain_export(model, folder)
    plain = OnnxRuntimeRunner(dataclasses.replace(dense.artifact, path=folder), RunOptions(threads=THREADS))
    found = []
    photographs = shipped_dataset(MODEL).images
    for batch in BATCHES:
        images = dense.preprocess([photographs[i % len(photographs)] for i in range(batch)])
        runners = {"plain": plain, "dense": dense}
        calls = {name: [call_for(runner, images, Timing.END_TO_END)] for name, runner in runners.items()}
        samples = measure(calls, MeasureOptions(duration=seconds))
        ratio = paired_ratio(samples["plain"], samples["dense"])
        found.append(
            {"batch": batch, "plain_over_flat_dense": dataclasses.asdict(ratio), "rounds": len(samples["plain"])}
        )
        click.echo(f"batch {batch}: timm's plain export takes {ratio.median:.3f} × flat dense", err=True)
    return found


@click.command()
@click.option("--seconds", type=float, default=60.0, show_default=True, help="Seconds to measure, per batch size.")
def main(seconds: float) -> None:
    """Measure and write results/density_cpu.json."""
    machine = environment("torch", "timm", "onnxruntime")
    model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM))
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(densities=DENSITIES, output=Path(folder) / "artifacts")
        artifacts = export_model(model, options, lambda line: click.echo(line, err=True))
        report = bench(
            artifacts,
            BenchOptions(batches=BATCHES, threads=THREADS, duration=seconds),
            lambda line: click.echo(line, err=True),
        )
        dense = load(artifacts[0], "onnxruntime", RunOptions(threads=THREADS))
        assert isinstance(dense, OnnxRuntimeRunner)
        plain_folder = Path(folder) / "plain"
        plain_folder.mkdir()
        plain = _against_plain(model, dense, plain_folder, seconds / 2)
    labels = {variant.id: variant.label for variant in report.variants}
    shares = [
        {
            "batch": row.batch,
            "variant": labels[row.variant],
            "mac_ratio": round(row.mac_ratio, 4),
            "speedup": dataclasses.asdict(row.speedup),
            "share": round(row.share, 4),
            "target": TARGET_SHARES[row.batch],
            "reached": row.share >= TARGET_SHARES[row.batch],
        }
        for row in report.rows
        if row.speedup is not None and row.share is not None
    ]
    for entry in shares:
        click.echo(
            f"batch {entry['batch']}, {entry['variant']}: share {entry['share']:.3f} of {entry['target']}", err=True
        )
    found = {"shares": shares, "against_timm": plain, "report": json.loads(to_json(report))}
    click.echo(write("density_cpu", f"python -m benchmarks.density_cpu --seconds {seconds:g}", found, machine))


if __name__ == "__main__":
    main()
