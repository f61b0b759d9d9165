"""What float8 (E4M3) changes in answers and kept tokens of the demonstration model, simulated on the processor.

    python -m benchmarks.float8_accuracy

The graphs are those that ``build-engine --quantized fp8`` makes: the layers and ranges of int8 artifacts, whose
numbers are rounded to E4M3 in place of int8. ONNX Runtime rounds so too, and multiplies in float32, where a GPU sums
products of E4M3 in its own order and the rest of an engine is fp16. So this is what rounding costs; no engine answered.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import onnx
import onnx_ir as ir

from benchmarks.common import environment, write
from benchmarks.int8_accuracy import DENSITIES, IMAGES, MASSES, SEED, row_of
from sait_deploy import demo
from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.demo.data import Split, compose_many
from sait_deploy.exporters.float8 import to_float8
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.dataset import Dataset
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.quantization.compare import answers, compare
from sait_deploy.quantization.options import QuantizeOptions
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import load
from sait_deploy.system.progress import no_progress

NAMES: Final = ("int8", "float8")


@click.command()
@click.option("--images", type=click.IntRange(min=8), default=IMAGES, show_default=True)
def main(images: int) -> None:
    """Measure and write results/float8_accuracy.json."""
    machine = environment("onnxruntime", "onnx", "torch", "timm")
    pixels, labels = compose_many(Split.HELD_OUT, images, SEED)
    dataset = Dataset(list(pixels), labels, f"{images} composed held-out digits, seed {SEED}")
    found = {
        "model": demo.NAME,
        "images": dataset.source,
        "simulated": "rounded to E4M3 on the processor, products in float32",
        "rows": list(_rows(dataset)),
    }
    command = f"python -m benchmarks.float8_accuracy{'' if images == IMAGES else f' --images {images}'}"
    click.echo(f"wrote {write('float8_accuracy', command, found, machine)}")


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yields a row for int8 and for float8 at each operating point."""
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(densities=DENSITIES, points=tuple(map(mass_point, MASSES)), output=Path(folder))
        floats = export_model(model, options)
        for artifact, quantised in zip(floats, quantize(floats, QuantizeOptions(min_agreement=0)), strict=True):
            click.echo(artifact.path.name)
            reference = answers(load(artifact), dataset, no_progress, "")
            for name, other in zip(NAMES, (quantised, in_float8(quantised, Path(folder, "float8"))), strict=True):
                for point in compare(reference, load(other), dataset, no_progress).points:
                    yield row_of(None, name, artifact, point)


def in_float8(artifact: Artifact, folder: Path) -> Artifact:
    """Returns a copy of an int8 artifact, in a folder, that rounds to float8 in place of int8.

    It is not opened as artifacts are: those hold no float8, and a graph that does is refused.
    """
    place = Path(shutil.copytree(artifact.path, folder / artifact.path.name))
    model = ir.serde.deserialize_model(onnx.load(place / MODEL_FILE))
    to_float8(model.graph)
    (place / MODEL_FILE).write_bytes(ir.serde.serialize_model(model).SerializeToString())
    manifest = artifact.manifest
    files = manifest.files | {MODEL_FILE: sha256_of(place / MODEL_FILE)}
    return dataclasses.replace(artifact, path=place, manifest=dataclasses.replace(manifest, files=files))


if __name__ == "__main__":
    main()
