"""What int8 and bf16 change in answers and kept tokens of the demonstration model, at each operating point.

    python -m benchmarks.int8_accuracy

Fp32 and int8 run on ONNX Runtime, bf16 on OpenVINO, where it and the processor can. All answer the same 1,500 held-out
composed images. ``--weights FILE`` measures other weights of the model, such as another seed's student; repeatable.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.common import environment, write
from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.artifacts.quantization_info import ComparedPoint
from sait_deploy.demo.data import Split, compose_many
from sait_deploy.errors import MissingDependency, RuntimeUnavailable
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.dataset import Dataset
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.quantization.compare import answers, compare
from sait_deploy.quantization.options import QuantizeOptions
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.system.progress import no_progress

IMAGES: Final = 1500
SEED: Final = 3000
DENSITIES: Final = (Decimal("0.5"), Decimal("0.3"))
MASSES: Final = (0.95, 0.9)
LARGEST_CHANGE: Final = {"int8": 0.3, "bf16": 0.1}
"""Points of top-1 that may be lost or gained."""
LEAST_AGREEMENT: Final = 99.5
"""Percent of int8's answers that have to be fp32's."""


@click.command()
@click.option("--weights", type=click.Path(path_type=Path), multiple=True, help="In place of the shipped ones.")
@click.option("--images", type=click.IntRange(min=8), default=IMAGES, show_default=True)
def main(weights: tuple[Path, ...], images: int) -> None:
    """Measure and write results/int8_accuracy.json."""
    machine = environment("onnxruntime", "openvino", "torch", "timm", "onnx")
    pixels, labels = compose_many(Split.HELD_OUT, images, SEED)
    dataset = Dataset(list(pixels), labels, f"{images} composed held-out digits, seed {SEED}")
    rows = [row for file in weights or (None,) for row in _rows(file, dataset)]
    for row in rows:
        row["met"] = _met(row)
    found = {
        "model": demo.NAME,
        "images": dataset.source,
        "targets": {"largest_change": LARGEST_CHANGE, "least_int8_agreement": LEAST_AGREEMENT},
        "rows": rows,
    }
    given = "".join(f" --weights {file}" for file in weights)
    click.echo(f"wrote {write('int8_accuracy', f'python -m benchmarks.int8_accuracy{given}', found, machine)}")


def _met(row: dict[str, Any]) -> bool:
    close = abs(row["change"]) <= LARGEST_CHANGE[row["precision"]]
    return close and (row["precision"] != "int8" or row["agreement"] >= LEAST_AGREEMENT)


def _rows(weights: Path | None, dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yields a row for each precision and operating point of one set of weights."""
    request = WeightsRequest(WeightsSource.DEMO) if weights is None else WeightsRequest(WeightsSource.FILE, weights)
    model = load_model(demo.NAME, request)
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(densities=DENSITIES, points=tuple(map(mass_point, MASSES)), output=Path(folder))
        floats = export_model(model, options)
        for artifact, quantised in zip(floats, quantize(floats, QuantizeOptions(min_agreement=0)), strict=True):
            for point in _compared(artifact, quantised, RunOptions(), "onnxruntime", dataset):
                yield row_of(weights, "int8", artifact, point)
            try:
                bf16 = RunOptions(precision=RunPrecision.BF16)
                for point in _compared(artifact, artifact, bf16, "openvino", dataset):
                    yield row_of(weights, "bf16", artifact, point)
            except (MissingDependency, RuntimeUnavailable) as error:
                click.echo(f"skipped bf16 of {artifact.path.name}: {error.message}")


def _compared(
    artifact: Artifact, other: Artifact, options: RunOptions, runtime: str, dataset: Dataset
) -> tuple[ComparedPoint, ...]:
    click.echo(f"{artifact.path.name} beside {other.path.name} on {runtime}")
    reference = answers(load(artifact), dataset, no_progress, "")
    return compare(reference, load(other, runtime, options), dataset, no_progress).points


def row_of(weights: Path | None, precision: str, artifact: Artifact, point: ComparedPoint) -> dict[str, Any]:
    """Returns one set of weights at one operating point, in a precision, beside the float artifact."""
    assert point.right is not None and point.float_right is not None
    return {
        "weights": "shipped" if weights is None else weights.name,
        "precision": precision,
        "artifact": artifact.manifest.name,
        "point": point.name,
        "top1": 100 * point.right / point.images,
        "fp32_top1": 100 * point.float_right / point.images,
        "change": round(100 * (point.right - point.float_right) / point.images, 6),
        "agreement": point.agreement,
        "compared": dataclasses.asdict(point),
    }


if __name__ == "__main__":
    main()
