"""What evaluation in torch saves by running the blocks before the pruning once for all points.

    python -m benchmarks.shared_blocks

Dense and ten points answer the same batch, by runners that share these blocks and by runners that do not, in turn.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any, Final

import click
import numpy as np

from benchmarks.common import THREADS, environment, write
from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.evaluation.answerers import Answerer, Identity
from sait_deploy.evaluation.options import ORACLE
from sait_deploy.evaluation.rows import of_density, of_point
from sait_deploy.evaluation.sources import ModelSource
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.runtime import RunOptions
from sait_deploy.tokens import Score, default_prune_at

MODELS: Final = {demo.NAME: 32, "deit_small_patch16_224": 4}
"""Name to images of a batch."""

TARGET: Final = 0.5
_DENSITIES: Final = tuple(map(Decimal, ("0.5", "0.3", "0.2", "0.1")))
_MASSES: Final = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


def _asked(patches: int) -> dict[str, list[Identity]]:
    densities = [of_density(density, patches) for density in _DENSITIES]
    masses = [of_point(mass_point(mass), patches) for mass in _MASSES]
    return {
        "oracle": [of_density(density, patches) for density in ORACLE],
        "four densities, six masses": densities + masses,
    }


def _seconds(answerers: list[Answerer], images: Any) -> float:
    batch = images.copy()  # another array is another batch to those who share
    began = time.perf_counter()
    for one in answerers:
        one.answer(batch)
    return time.perf_counter() - began


def _measured(loaded: LoadedModel, asked: list[Identity], images: Any, rounds: int) -> dict[str, float]:
    pruning, options = (Score.MEAN, default_prune_at(loaded.info.geometry.depth)), RunOptions(threads=THREADS)

    def source() -> ModelSource:
        return ModelSource(loaded, pruning, options)

    one = source()
    shared = [one.dense(), *map(one.at, asked)]
    alone = [source().dense(), *(source().at(identity) for identity in asked)]
    times: dict[str, list[float]] = {"shared": [], "alone": []}
    for number in range(rounds + 1):
        for name, answerers in (("shared", shared), ("alone", alone)):
            seconds = _seconds(answerers, images)
            if number:  # the first round finds nothing ready
                times[name].append(seconds)
    ratio = paired_ratio(times["shared"], times["alone"])
    return {"low": round(ratio.low, 4), "median": round(ratio.median, 4), "high": round(ratio.high, 4)}


@click.command()
@click.option("--rounds", type=click.IntRange(min=6), default=6, show_default=True)
@click.option("--model", "models", type=click.Choice(list(MODELS)), multiple=True, help="[default: all]")
def main(rounds: int, models: tuple[str, ...]) -> None:
    """Measure and write results/shared_blocks.json."""
    found: dict[str, Any] = {"rounds": rounds, "target": TARGET, "models": {}}
    for name in models or MODELS:
        source = WeightsSource.DEMO if name == demo.NAME else WeightsSource.RANDOM
        loaded = load_model(name, WeightsRequest(source))
        height, width = loaded.info.image_size
        images = np.random.default_rng(0).standard_normal((MODELS[name], 3, height, width), dtype=np.float32)
        asked = _asked(loaded.info.geometry.patch_tokens)
        ratios = {what: _measured(loaded, points, images, rounds) for what, points in asked.items()}
        found["models"][name] = {"batch": MODELS[name], "time_shared_over_alone": ratios}
        click.echo(f"{name}: {ratios}", err=True)
    click.echo(write("shared_blocks", "python -m benchmarks.shared_blocks", found, environment("torch", "timm")))


if __name__ == "__main__":
    main()
