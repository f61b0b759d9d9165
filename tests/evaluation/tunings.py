"""What tests of tuning share: images, options of a short sequence, and answers had in another way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sait_deploy.evaluation.tune_results import TuneOptions
from sait_deploy.evaluation.tune_splits import SplitOptions
from sait_deploy.runtime import Runner
from sait_deploy.tokens import OperatingPoint
from tests.exported import IMAGE_SIZE, POINTS

GRID = (0.999, 0.99, 0.95, 0.9, 0.8, 0.6)
COUNT = 260
LIMIT = 12.0
EXPORTED = tuple(point.name for point in POINTS)


def draw(folder: Path, count: int, seed: int) -> list[Path]:
    """Writes images of coarse noise."""
    folder.mkdir(parents=True)
    generator, places = np.random.default_rng(seed), []
    for number in range(count):
        pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        places.append(folder / f"{seed}-{number:03d}.png")
        Image.fromarray(pixels).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR).save(places[-1])
    return places


def options(images: Path, limit: float = LIMIT, check: Path | None = None, **changes: object) -> TuneOptions:
    made = TuneOptions(max_disagreement=limit, splits=SplitOptions(images, check), grid=GRID, threads=1)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def answers(runner: Runner, places: Sequence[object], point: OperatingPoint | None) -> tuple[np.ndarray, np.ndarray]:
    """Top-1 and kept tokens of images, asked all at once."""
    mass, least, most = (1.0, 1, 36) if point is None else (point.mass, point.min_keep, point.max_keep)
    found = runner.run(runner.preprocess(list(map(str, places))), mass=mass, min_keep=least, max_keep=most)
    return found.logits.argmax(axis=1), found.kept
