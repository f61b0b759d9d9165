"""Checkpoints of the further tasks: they are those that the results are of, and answer what their task asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common import read_result
from benchmarks.demo_runs import load
from sait_deploy import demo
from sait_deploy.demo.data import Split, stacked
from sait_deploy.demo.tasks import GOODS, MANY, composed_scenes
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.images.dataset import Dataset, folder_dataset

CHECKPOINTS = Path(__file__).parents[2] / "samples" / "checkpoints"
DENSE = EvaluateOptions(densities=(1,), controls=(), lower_resolutions=(), threads=1)


def top1(file: str, images: Dataset) -> float:
    """Percent of images that dense answers rightly."""
    found = evaluate(load(CHECKPOINTS / file), images, DENSE).rows[0].top1_percent
    assert found is not None
    return found


@pytest.mark.parametrize("task", ["many", "goods"])
def test_the_results_are_of_these_weights(task: str) -> None:
    known = read_result(f"adapting_{task}")["evaluations"].values()
    assert load(CHECKPOINTS / f"{task}.safetensors").weights.sha256 in {one["weights_sha256"] for one in known}


def test_all_weights_together_are_small() -> None:
    files = [demo.WEIGHTS, *CHECKPOINTS.glob("*.safetensors")]
    assert sum(file.stat().st_size for file in files) < 16e6


def test_many_digits_are_read() -> None:
    images, labels = stacked(composed_scenes(MANY, Split.HELD_OUT, 100, 9, None))
    assert top1("many.safetensors", Dataset(list(images), labels, "composed")) > 65


def test_goods_are_told_apart() -> None:
    assert top1("goods.safetensors", folder_dataset(demo.GOODS_IMAGES, GOODS.labels, len(GOODS.labels))) > 65
