"""The real tower exported, quantised to int8 as ``sait-deploy quantize`` does, and run on ONNX Runtime, dense and at a
density."""

from __future__ import annotations

import functools
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import THREADS
from benchmarks.real_folds import BATCH, Fold
from benchmarks.real_prepared import PRUNE_AT, Prepared
from benchmarks.selection_parts import Floats
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Task
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.preprocess import preprocess
from sait_deploy.quantization.options import QuantizeOptions
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import load
from sait_deploy.runtime.options import RunOptions
from sait_deploy.tokens import Score

CALIBRATED_ON: Final = 256
"""Composites of the fold after the one asked about, which shares no photograph with it."""


def int8_features(prepared: Prepared, fold: Fold, asked: NDArray[np.intp], density: Decimal) -> tuple[Floats, Floats]:
    """Returns features [n, D] of a fold's composites by int8 artifacts: dense, and at a density by the mean score."""
    with tempfile.TemporaryDirectory() as folder:
        made = functools.cache(lambda: _quantised(prepared, fold.number, Path(folder), density))
        name = f"int8-agreeing-{len(asked)}"
        dense = fold.features(f"{name}-dense", lambda: _run(prepared, fold, asked, made()[0]))
        return dense, fold.features(f"{name}-{density}", lambda: _run(prepared, fold, asked, made()[1]))


def _quantised(prepared: Prepared, number: int, folder: Path, density: Decimal) -> list[Artifact]:
    """Returns int8 artifacts of the tower, dense first, calibrated on composites on photographs of another fold."""
    other = prepared.folds[(number + 1) % len(prepared.folds)]
    chosen = np.linspace(0, len(other.pixels) - 1, CALIBRATED_ON).astype(int)
    images = folder / "images"
    images.mkdir()
    for one in chosen:
        Image.fromarray(other.pixels[one]).save(images / f"{one}.png")
    options = ExportOptions(
        densities=(density,), score=Score.MEAN, prune_at=PRUNE_AT, task=Task.EMBED, output=folder / "artifacts"
    )
    floats = export_model(prepared.model, options, prepared.report)
    return quantize(floats, QuantizeOptions(images=images, threads=THREADS), prepared.report)


def _run(prepared: Prepared, fold: Fold, asked: NDArray[np.intp], artifact: Artifact) -> Floats:
    """Returns what an artifact answers."""
    runner, parts = load(artifact, options=RunOptions(THREADS)), []
    for first in range(0, len(asked), BATCH):
        pixels = preprocess(list(fold.pixels[asked[first : first + BATCH]]), prepared.preprocessing)
        parts.append(runner.run(pixels).logits)
        prepared.report(f"fold {fold.number}, {artifact.manifest.name}", min(1.0, (first + BATCH) / len(asked)))
    return np.concatenate(parts)
