"""What building engines costs: cutting and lowering, and TensorRT for RTX on stem and trunk against the dense engine.

    python -m benchmarks.engine_build

Needs no GPU. Lowering runs in a process of its own, imports not timed. Builds are interleaved, round by round; each
runs in the building process that ``sait-deploy build-engine`` uses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, Final

import click

from benchmarks.common import environment, peak_kib, write

LOWERED: Final = "deit_base_patch16_224"
BUILT: Final = "deit_small_patch16_224"
MATRIX: Final = (BUILT, "vit_base_patch16_224")
MATRIX_TARGETS: Final = ("sm86", "sm89", "sm120")
FORMS: Final = ("dense", "density0.6", "adaptive")
TARGET: Final = "sm89"
ROUNDS: Final = 9
TARGETS: Final = {
    "lowering_seconds": 10.0,
    "lowering_memory_ratio": 3.0,
    "build_time_ratio": 1.1,
    "build_size_ratio": 1.1,
}


def _export(folder: Path, name: str) -> None:
    from sait_deploy.artifacts.manifest import WeightsSource
    from sait_deploy.artifacts.points import mass_point
    from sait_deploy.exporting.plan import ExportOptions
    from sait_deploy.exporting.stage import export_model
    from sait_deploy.models.registry import WeightsRequest, load_model

    model = load_model(name, WeightsRequest(WeightsSource.RANDOM))
    export_model(model, ExportOptions(densities=(Decimal("0.6"),), points=(mass_point(0.95),), output=folder))


def _lower(artifact: Path) -> dict[str, float]:
    """Cuts and lowers once and returns seconds and peak resident KiB of this process."""
    from sait_deploy.artifacts.folder import open_artifact
    from sait_deploy.engine.lowering import lower_parts
    from sait_deploy.exporters.names import AttentionForm, EnginePrecision, LowerOptions, SelectionForm

    opened, before = open_artifact(artifact), peak_kib()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        options = LowerOptions(EnginePrecision.FP16, AttentionForm.FUSED, SelectionForm.FUNCTION)
        lower_parts(opened, options, Path(folder))
        seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 4), "peak_kib": float(peak_kib()), "peak_kib_before": float(before)}


def _lowering(folder: Path) -> dict[str, Any]:
    _run("--export", LOWERED, folder)
    artifact = folder / f"{LOWERED}-adaptive"
    runs = [_run("--lower", LOWERED, artifact) for _ in range(3)]
    kib = (artifact / "model.onnx").stat().st_size / 1024
    return {"model": LOWERED, "model_kib": round(kib), "precision": "fp16", "runs": runs}


def _run(task: str, name: str, path: Path) -> Any:
    command = [sys.executable, "-m", "benchmarks.engine_build", task, name, "--path", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if task == "--lower" else None


def _builds(folder: Path) -> dict[str, Any]:
    from sait_deploy.artifacts.folder import open_artifact
    from sait_deploy.engine.build import build_engine
    from sait_deploy.engine.options import BuilderChoice, EngineOptions

    options = EngineOptions(builder=BuilderChoice.TENSORRT_RTX, targets=(TARGET,))
    forms = {form: open_artifact(folder / f"{BUILT}-{form}") for form in FORMS}
    found: dict[str, Any] = {
        form: {"command_seconds": [], "part_seconds": [], "size_bytes": 0, "fused": ""} for form in forms
    }
    for turn in range(ROUNDS):
        for form, artifact in forms.items():
            started = time.perf_counter()
            engine = build_engine(artifact, options)
            entry, parts = found[form], engine.manifest.parts
            entry["command_seconds"].append(round(time.perf_counter() - started, 4))
            entry["part_seconds"].append({part.name: part.build_seconds for part in parts})
            entry["size_bytes"] = sum(part.size_bytes for part in parts)
            entry["fused"] = f"{engine.manifest.attention.fused} of {engine.manifest.attention.blocks}"
        click.echo(f"round {turn + 1} of {ROUNDS}", err=True)
    return found


def _matrix(folder: Path) -> list[dict[str, Any]]:
    """Builds every model, form and precision once for three targets, and says what came of it."""
    from sait_deploy.engine.build import build_engine
    from sait_deploy.engine.options import BuilderChoice, EngineOptions
    from sait_deploy.exporters.names import EnginePrecision

    found = []
    for model in MATRIX:
        _run("--export", model, folder)
        for precision in EnginePrecision:
            options = EngineOptions(BuilderChoice.TENSORRT_RTX, precision, targets=MATRIX_TARGETS)
            for form in FORMS:
                manifest = build_engine(folder / f"{model}-{form}", options).manifest
                attention = manifest.attention
                entry = {
                    "model": model,
                    "form": form,
                    "precision": precision.value,
                    "products": manifest.precisions_got,
                    "attention": f"{attention.form}, {attention.fused} of {attention.blocks}",
                    "seconds": {part.name.value: part.build_seconds for part in manifest.parts},
                    "size_bytes": {part.name.value: part.size_bytes for part in manifest.parts},
                }
                found.append(entry)
                click.echo(f"{model} {form} {precision}: {entry['attention']} fused", err=True)
    return found


def _ratios(lowering: dict[str, Any], builds: dict[str, Any]) -> dict[str, float]:
    dense = builds["dense"]
    ratios = {
        "lowering_seconds": round(median(run["seconds"] for run in lowering["runs"]), 2),
        "lowering_memory_ratio": round(max(run["peak_kib"] for run in lowering["runs"]) / lowering["model_kib"], 2),
    }
    for form in ("density0.6", "adaptive"):
        pairs = zip(builds[form]["command_seconds"], dense["command_seconds"], strict=True)
        compiled = zip(builds[form]["part_seconds"], dense["part_seconds"], strict=True)
        ratios[f"{form}_command_time"] = round(median(own / base for own, base in pairs), 3)
        ratios[f"{form}_summed_part_time"] = round(
            median(sum(own.values()) / sum(base.values()) for own, base in compiled), 3
        )
        ratios[f"{form}_size"] = round(builds[form]["size_bytes"] / dense["size_bytes"], 3)
    return ratios


@click.command()
@click.option("--export", "exported", hidden=True)
@click.option("--lower", "lowered", hidden=True)
@click.option("--path", type=click.Path(path_type=Path), hidden=True)
def main(exported: str | None, lowered: str | None, path: Path | None) -> None:
    """Measure and write results/engine_build.json."""
    if exported is not None and path is not None:
        _export(path, exported)
    elif lowered is not None and path is not None:
        click.echo(json.dumps(_lower(path)))
    else:
        machine = environment("tensorrt-rtx-cu13", "onnx", "onnx-ir", "onnx-graphsurgeon")
        with tempfile.TemporaryDirectory() as folder:
            lowering = _lowering(Path(folder))
            matrix = _matrix(Path(folder))
            builds = _builds(Path(folder))
        ratios = _ratios(lowering, builds)
        click.echo(json.dumps(ratios), err=True)
        found = {
            "ratios": ratios,
            "targets": TARGETS,
            "target": TARGET,
            "lowering": lowering,
            "builds": builds,
            "matrix_targets": MATRIX_TARGETS,
            "matrix": matrix,
        }
        click.echo(write("engine_build", "python -m benchmarks.engine_build", found, machine))


if __name__ == "__main__":
    main()
