"""How fast an evaluation through an artifact is beside the artifact alone, decoding included.

    python -m benchmarks.evaluation_speed

DeiT-S with random weights, dense and adaptive, on ONNX Runtime; JPEG files of 500 x 375 pixels. A pass over the files
takes turns with the runner on the same images, preprocessed beforehand: what ``bench`` measures.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from PIL import Image

from benchmarks.common import THREADS, environment, write
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.evaluation.answerers import Answerer
from sait_deploy.evaluation.answers import Collector
from sait_deploy.evaluation.sources import DENSE
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.dataset import PHOTOGRAPHS, Dataset
from sait_deploy.images.preprocess import list_images
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.runtime import RunOptions, load
from sait_deploy.system.progress import no_progress

MODEL: Final = "deit_small_patch16_224"
FILES: Final = 128
BATCH: Final = 32
TARGET: Final = 0.9


def _files(folder: Path) -> Dataset:
    """Writes pieces of the shipped photographs at the size of ImageNet's usual images."""
    draw = np.random.default_rng(0)
    photographs = [Image.open(path).convert("RGB") for path in list_images(PHOTOGRAPHS).paths]
    paths = []
    for number in range(FILES):
        whole = photographs[number % len(photographs)]
        side = int(draw.integers(160, min(whole.size) + 1))
        left, top = (int(draw.integers(0, length - side + 1)) for length in whole.size)
        path = folder / f"{number}.jpg"
        whole.resize((500, 375), box=(left, top, left + side, top + side)).save(path, quality=90)
        paths.append(path)
    return Dataset(paths, None, "pieces of photographs")


@click.command()
@click.option("--rounds", type=click.IntRange(min=6), default=6, show_default=True)
def main(rounds: int) -> None:
    """Measure and write results/evaluation_speed.json."""
    found: dict[str, Any] = {"model": MODEL, "files": FILES, "batch": BATCH, "rounds": rounds, "target": TARGET}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM))
        options = ExportOptions(points=(mass_point(0.6),), output=place / "artifacts")
        artifacts = export_model(model, options)
        dataset = _files(place)
        for artifact in artifacts:
            runner = load(artifact, "onnxruntime", RunOptions(threads=THREADS))
            ready = [runner.preprocess(dataset.images[i : i + BATCH]) for i in range(0, FILES, BATCH)]
            evaluating: list[float] = []
            running: list[float] = []
            for _ in range(rounds):
                began = time.perf_counter()
                Collector(dataset, BATCH, no_progress).collect([Answerer(DENSE, runner)])
                evaluating.append(time.perf_counter() - began)
                began = time.perf_counter()
                for images in ready:
                    runner.run(images)
                running.append(time.perf_counter() - began)
            ratio = paired_ratio(running, evaluating)
            shown = {"low": round(ratio.low, 4), "median": round(ratio.median, 4), "high": round(ratio.high, 4)}
            found[artifact.manifest.form.value] = {"throughput_over_runner": shown}
            click.echo(f"{artifact.manifest.form}: {shown}", err=True)
    machine = environment("onnxruntime", "Pillow")
    click.echo(write("evaluation_speed", "python -m benchmarks.evaluation_speed", found, machine))


if __name__ == "__main__":
    main()
