"""Other families than plain ViTs: which share of the MAC ratio pruning reaches on CPUs, and in how much memory.

    python -m benchmarks.families_cpu --model vit_small_patch16_dinov3
    python -m benchmarks.families_cpu --model vit_base_patch16_siglip_224
    python -m benchmarks.families_cpu --model lvvit_small
    python -m benchmarks.families_cpu --model vit_base_patch16_siglip_384

DINOv3's ViT-S/16 rotates queries and keys by positions that are gathered with the kept tokens; SigLIP's ViT-B/16 pools
by attention over them, from 576 patches at 384 px; LV-ViT-S has convolutions before its blocks, and a head over every
kept token. Random weights, 2 threads, ONNX Runtime in fp32 and OpenVINO in fp32 and bf16. Density 0.5, and the
adaptive form forced to half of the patch tokens ± a twentieth. ``sait-deploy bench`` measures; the result file holds
ratios, each model in its own part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from benchmarks.common import RESULTS, THREADS, environment, read_result, write
from benchmarks.precisions_cpu import FLAT_FP32, fastest_dense, float_artifacts_of, memory_of, rows_of, say
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.options import AccuracyOf, Also, BenchOptions
from sait_deploy.bench.run import bench
from sait_deploy.bench.variants import Sweep
from sait_deploy.runtime.precision import RunPrecision

NAME: Final = "families_cpu"
TARGET: Final = 0.93
JUDGED: Final[dict[str, tuple[int, ...]]] = {
    "vit_small_patch16_dinov3": (8, 32),
    "vit_base_patch16_siglip_224": (8, 32),
    "lvvit_small": (1, 8),
    "vit_base_patch16_siglip_384": (1, 8),
}
"""Batch sizes at which the target holds, by model."""


def judged(rows: list[dict[str, Any]], fastest: dict[int, str], batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Returns what the target says of each row of ONNX Runtime and of the group whose dense is the fastest."""
    return [
        {**{name: row[name] for name in ("group", "variant", "batch", "share")}, "reached": row["share"] >= TARGET}
        for row in rows
        if row["share"] is not None
        and row["batch"] in batches
        and row["group"] in {FLAT_FP32, fastest.get(row["batch"])}
    ]


@click.command()
@click.option("--model", type=click.Choice(list(JUDGED)), default=next(iter(JUDGED)), show_default=True)
@click.option("--duration", type=float, default=8.0, show_default=True, help="Seconds per group and batch size.")
@click.option("--batch", "batches", type=int, multiple=True, help="Batch sizes.  [default: 1 and those judged]")
@click.option("--workspace", type=click.Path(path_type=Path), default=Path("build/families"), show_default=True)
@click.option("--dry", is_flag=True, help="Print, and write no result file.")
def main(model: str, duration: float, batches: tuple[int, ...], workspace: Path, dry: bool) -> None:
    """Measure a model and write its part of results/families_cpu.json."""
    machine = environment("onnxruntime", "openvino")
    artifacts = float_artifacts_of(model, workspace / model)
    patches = artifacts[0].manifest.model.geometry.patch_tokens
    kept = KeptDistribution(patches // 2, patches // 20)
    options = BenchOptions(
        batches=batches or tuple(sorted({1, *JUDGED[model]})),
        runtimes=("onnxruntime", "openvino"),
        precisions=(RunPrecision.FP32, RunPrecision.BF16),
        threads=THREADS,
        accuracy=AccuracyOf.NONE,
        duration=duration,
        sweep=Sweep(kept=(kept,)),
        also=frozenset({Also.MEMORY}),
    )
    report = bench(artifacts, options, say)
    rows, fastest = rows_of(report), fastest_dense(report)
    verdicts, memory = judged(rows, fastest, JUDGED[model]), memory_of(report)
    for row in rows:
        if row["share"] is not None:
            click.echo(f"{row['group']}, batch {row['batch']}, {row['variant']}: share {row['share']:.3f}", err=True)
    for one in memory:
        click.echo(f"{one['group']}, {one['variant']}: peak memory {one['over_dense']:.3f} of dense's", err=True)
    part = {
        "environment": machine,
        "kept": f"{patches // 2} ± {patches // 20} of {patches}",
        "fastest_dense": {str(batch): group for batch, group in fastest.items()},
        "target": TARGET,
        "judged": verdicts,
        "rows": rows,
        "memory": memory,
        "skipped": [f"{one.group}: {one.reason}" for one in report.skipped],
        "notes": [note.text for note in report.notes],
    }
    if dry:
        return
    parts = read_result(NAME)["models"] if (RESULTS / f"{NAME}.json").is_file() else {}
    command = f"python -m benchmarks.families_cpu --model MODEL --duration {duration:g}"
    click.echo(write(NAME, command, {"models": parts | {model: part}}, machine))


if __name__ == "__main__":
    main()
