"""The adaptive form against density at the same mean count: ONNX Runtime and OpenVINO, in fp32, bf16 and int8.

    python -m benchmarks.adaptive_precisions

DeiT-S with random weights. Density 0.5 keeps 98 patch tokens of every image; the adaptive form is made to keep 98 on
average, with a spread. Numbers of tokens are drawn anew for every request, as images would, since a runtime may prepare
itself for sizes that it has met. What this processor does not compute in is said and skipped.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import THREADS, environment, write
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form, Precision, WeightsSource
from sait_deploy.artifacts.points import PointChoice, mass_point
from sait_deploy.bench.clock import MeasureOptions, measure
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.dataset import shipped_dataset
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.quantization.options import QuantizeOptions
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.runtime.precision import RunPrecision

MODEL: Final = "deit_small_patch16_224"
DENSITY: Final = Decimal("0.5")
BATCHES: Final = (1, 8, 32)
TARGETS: Final = {10: 1.05, 25: 1.10}
"""Spread of the kept tokens to the most that the adaptive form may take of density's time."""

CASES: Final = (
    ("onnxruntime", RunPrecision.FP32),
    ("openvino", RunPrecision.FP32),
    ("openvino", RunPrecision.BF16),
    ("onnxruntime", RunPrecision.INT8),
    ("openvino", RunPrecision.INT8),
    ("openvino", RunPrecision.INT8_BF16),
)
_INT8: Final = (RunPrecision.INT8, RunPrecision.INT8_BF16)
_DISTINCT: Final = 512
"""Batches of counts that are drawn for each spread, more than are run."""


def _say(step: str, share: float | None = None) -> None:
    """Prints a step of a stage when it begins."""
    if share is None:
        click.echo(step, err=True)


def _request(runner: Runner, images: NDArray[np.float32], counts: NDArray[np.int64] | None) -> Callable[[], None]:
    """Returns a call that runs the images, each time with the next of the counts, int64 [batches, B]."""
    turn = 0

    def run() -> None:
        nonlocal turn
        kept = None if counts is None else counts[turn % len(counts)]
        turn += 1
        runner.run_at(images, PointChoice() if kept is None else PointChoice(None, 1.0, kept, kept))

    return run


def _counts(batch: int, spread: int, mean: int, patches: int) -> NDArray[np.int64]:
    drawn = np.random.default_rng(spread).normal(mean, spread, (_DISTINCT, batch))
    return np.rint(drawn).clip(1, patches).astype(np.int64)


def _measured(load_one: Callable[[Form], Runner], seconds: float) -> list[dict[str, Any]]:
    density = load_one(Form.DENSITY)
    adaptive = {spread: load_one(Form.ADAPTIVE) for spread in TARGETS}
    manifest = density.artifact.manifest
    assert manifest.pruning is not None
    mean, patches = manifest.pruning.points[0].point.max_keep, manifest.model.geometry.patch_tokens
    photographs, found = shipped_dataset(MODEL).images, []
    for batch in BATCHES:
        images = density.preprocess([photographs[i % len(photographs)] for i in range(batch)])
        calls = {"density": [_request(density, images, None)]}
        for spread, runner in adaptive.items():
            calls[str(spread)] = [_request(runner, images, _counts(batch, spread, mean, patches))]
        samples = measure(calls, MeasureOptions(duration=seconds, warmup=5))
        for spread, target in TARGETS.items():
            ratio = paired_ratio(samples[str(spread)], samples["density"])
            row = {"batch": batch, "spread": spread, "time_over_density": dataclasses.asdict(ratio)}
            found.append({**row, "target": target, "reached": ratio.median <= target})
            click.echo(f"  batch {batch}, {mean} ± {spread}: {ratio.median:.3f} × density, at most {target}", err=True)
    return found


def _case(artifacts: list[Artifact], runtime: str, precision: RunPrecision, seconds: float) -> dict[str, Any]:
    click.echo(f"{runtime} in {precision}", err=True)
    held = Precision.INT8 if precision in _INT8 else Precision.FP32
    options = RunOptions(threads=THREADS, precision=precision)

    def load_one(form: Form) -> Runner:
        (artifact,) = (one for one in artifacts if one.manifest.form is form and one.manifest.dtype is held)
        return load(artifact, runtime, options)

    case: dict[str, Any] = {"runtime": runtime, "precision": precision.value}
    try:
        return {**case, "rows": _measured(load_one, seconds)}
    except RuntimeUnavailable as error:
        click.echo(f"  skipped: {error.message}", err=True)
        return {**case, "skipped": error.message}


@click.command()
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Seconds to measure, per batch size.")
def main(seconds: float) -> None:
    """Measure and write results/adaptive_precisions.json."""
    machine = environment("torch", "timm", "onnxruntime", "openvino")
    model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM))
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions((DENSITY,), (mass_point(1.0),), output=Path(folder))
        artifacts = export_model(model, options, _say)
        artifacts += quantize(artifacts, QuantizeOptions(), _say)
        cases = [_case(artifacts, runtime, precision, seconds) for runtime, precision in CASES]
    command = f"python -m benchmarks.adaptive_precisions --seconds {seconds:g}"
    found = {"model": MODEL, "density": str(DENSITY), "cases": cases}
    click.echo(json.dumps(cases, indent=1), err=True)
    click.echo(write("adaptive_precisions", command, found, machine))


if __name__ == "__main__":
    main()
