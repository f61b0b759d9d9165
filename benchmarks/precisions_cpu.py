"""Dense, density and adaptive on ONNX Runtime and OpenVINO in fp32, bf16 and int8, against the fastest dense of any.

    python -m benchmarks.precisions_cpu --model deit_small_patch16_224
    python -m benchmarks.precisions_cpu --model vit_base_patch16_224

Random weights, 224 px, 2 threads. Density 0.5 keeps 98 of 196 patch tokens; the adaptive form is forced to 98 ± 10.
``sait-deploy bench`` measures; the result file holds its ratios without the raw times, each model in its own part. What
this processor does not compute in is skipped and said.
"""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.common import RESULTS, THREADS, environment, read_result, write
from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Precision, WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.bench.groups import with_baseline
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.options import AccuracyOf, Also, BenchOptions
from sait_deploy.bench.results import BenchRow, Report, Variant
from sait_deploy.bench.run import bench
from sait_deploy.bench.variants import Sweep
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime.precision import RunPrecision

NAME: Final = "precisions_cpu"
MODELS: Final = ("deit_small_patch16_224", "vit_base_patch16_224")
PRECISIONS: Final = (RunPrecision.FP32, RunPrecision.BF16, RunPrecision.INT8, RunPrecision.INT8_BF16)
KEPT: Final = KeptDistribution(98, 10)
FLAT_FP32: Final = "onnxruntime fp32"
"""The group whose dense baseline users have today."""


def say(step: str, share: float | None = None) -> None:
    """Prints a step of a stage when it begins."""
    if share is None:
        click.echo(step, err=True)


def float_artifacts_of(name: str, folder: Path) -> list[Artifact]:
    """Exports a model with random weights at density 0.5 and adaptive, unless that was done before, dense first."""
    there = [open_artifact(path) for path in Workspace(folder).artifacts()]
    if not there:
        options = ExportOptions((Decimal("0.5"),), (mass_point(0.9),), output=folder)
        there = export_model(load_model(name, WeightsRequest(WeightsSource.RANDOM)), options, say)
    return with_baseline([artifact.path for artifact in there if artifact.manifest.dtype is Precision.FP32])


def artifacts_of(name: str, folder: Path) -> list[Artifact]:
    """Exports a model and quantises it, each unless that was done before; the float artifacts, dense first."""
    artifacts = float_artifacts_of(name, folder)
    there = [open_artifact(path) for path in Workspace(folder).artifacts()]
    if not any(artifact.manifest.dtype is Precision.INT8 for artifact in there):
        quantize(artifacts, progress=say)
    return artifacts


def rows_of(report: Report) -> list[dict[str, Any]]:
    """What was found of each variant at each batch size, as ratios."""
    variants = {variant.id: variant for variant in report.variants}
    fastest = {(one.batch, one.variant): one for one in report.over_fastest}
    return [_row(row, variants, fastest) for row in report.rows]


def _row(row: BenchRow, variants: dict[str, Variant], fastest: dict[tuple[int, str], Any]) -> dict[str, Any]:
    variant = variants[row.variant]
    flat = next(v for v in variants.values() if v.group == FLAT_FP32 and v.baseline)
    over, flat_over = (fastest.get((row.batch, name)) for name in (row.variant, flat.id))
    ratio = over.speedup.median if over is not None else None
    return {
        "group": variant.group,
        "variant": variant.label,
        "batch": row.batch,
        "kept": row.kept_mean,
        "mac_ratio": row.mac_ratio,
        "over_own_dense": None if row.speedup is None else dataclasses.asdict(row.speedup),
        "share": row.share,
        "over_fastest_dense": None if over is None else dataclasses.asdict(over.speedup),
        "over_flat_fp32": None if ratio is None or flat_over is None else ratio / flat_over.speedup.median,
    }


def fastest_dense(report: Report) -> dict[int, str]:
    """Returns batch size to the group whose dense is the fastest, as the benchmark found it."""
    groups = {variant.id: variant.group for variant in report.variants}
    return {over.batch: groups[over.fastest] for over in report.over_fastest}


def memory_of(report: Report) -> list[dict[str, Any]]:
    """Each variant's own peak memory over that of its group's dense."""
    variants = {variant.id: variant for variant in report.variants}
    own = {variants[one.variant].id: one.own_bytes for one in report.memory or ()}
    dense = {v.group: own[v.id] for v in variants.values() if v.baseline and v.id in own}
    return [
        {"group": v.group, "variant": v.label, "over_dense": own[v.id] / dense[v.group]}
        for v in variants.values()
        if v.id in own and v.group in dense and not v.baseline
    ]


@click.command()
@click.option("--model", type=click.Choice(MODELS), default=MODELS[0], show_default=True)
@click.option("--duration", type=float, default=8.0, show_default=True, help="Seconds per group and batch size.")
@click.option("--workspace", type=click.Path(path_type=Path), default=Path("build/precisions"), show_default=True)
def main(model: str, duration: float, workspace: Path) -> None:
    """Measure a model and write its part of results/precisions_cpu.json."""
    machine = environment("onnxruntime", "openvino")
    options = BenchOptions(
        runtimes=("onnxruntime", "openvino"),
        precisions=PRECISIONS,
        threads=THREADS,
        accuracy=AccuracyOf.NONE,
        duration=duration,
        sweep=Sweep(kept=(KEPT,)),
        also=frozenset({Also.MEMORY}),
    )
    artifacts = artifacts_of(model, workspace / model)
    report = bench(artifacts, options, say)
    rows = rows_of(report)
    sizes = {path.name: (path / "model.onnx").stat().st_size for path in Workspace(workspace / model).artifacts()}
    part = {
        "environment": machine,
        "fastest_dense": {str(batch): group for batch, group in fastest_dense(report).items()},
        "rows": rows,
        "memory": memory_of(report),
        "int8_size_over_fp32": {n: size / sizes[n.removesuffix("-int8")] for n, size in sizes.items() if "-int8" in n},
        "skipped": [f"{one.group}: {one.reason}" for one in report.skipped],
        "notes": [note.text for note in report.notes],
    }
    parts = read_result(NAME)["models"] if (RESULTS / f"{NAME}.json").is_file() else {}
    command = f"python -m benchmarks.precisions_cpu --model MODEL --duration {duration:g}"
    click.echo(write(NAME, command, {"kept": "98 ± 10", "models": parts | {model: part}}, machine))


if __name__ == "__main__":
    main()
