"""The segmentation suite: what it counts over seeds, and that its random tokens are as many as the chosen ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.dense_task_figures import segmentation_table
from benchmarks.segmentation import HEADS, Images, read, summarised
from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.demo.data import Split
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.tokens import Score


def test_rows_are_means_over_seeds_and_gaps_are_paired() -> None:
    seeds = [
        {
            name: {head: {"own": own + by, "of dense": by} for head in HEADS}
            for name, own in (("dense", 40), ("d", each))
        }
        for by, each in ((0, 42), (10, 43))
    ]
    rows = {(row["backbone"], row["head"]): row for row in summarised(seeds)}
    assert set(rows) == {(name, head) for name in ("dense", "d") for head in HEADS}
    row = rows["d", "last block"]
    assert row["mean_iou"] == {"mean": 47.5, "sd": pytest.approx(7.78, abs=0.01)}
    assert row["over_dense"] == {"mean": 2.5, "sd": pytest.approx(0.71, abs=0.01)}
    assert rows["dense", "last block"]["over_dense"] == {"mean": 0, "sd": 0}


def test_random_tokens_are_as_many_as_chosen_ones_and_others() -> None:
    images = Images(load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO)), Split.HELD_OUT, 4, 0)
    pruning = FixedPruning(Score.MEAN, 1, 29)
    chosen, drawn = images.maps(pruning), images.maps(pruning, np.random.default_rng(0))
    flags = [maps[5][..., -1] for maps in (chosen, drawn, images.maps(None))]
    assert [set(flag.sum((1, 2))) for flag in flags] == [{29}, {29}, {144}]
    assert not np.array_equal(*flags[:2])
    assert read(chosen, (1, 3, 5)).shape == (4, 12, 12, 3 * 128 + 1)
    assert images.masks.shape == (4, 96, 96)


def test_the_page_has_the_table_of_the_result() -> None:
    page = Path(__file__).parents[2] / "docs" / "dense-tasks.md"
    assert "\n".join(segmentation_table()) in page.read_text(encoding="utf-8")
