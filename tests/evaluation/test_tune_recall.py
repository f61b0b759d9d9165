"""Tuning models that embed: points are held to the recall of what is nearest by dense."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.tuned_points import Measure, read_points
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.retrieval import recalled
from sait_deploy.evaluation.stats import upper_bound
from sait_deploy.evaluation.tune import tune
from sait_deploy.evaluation.tune_limits import Limit
from sait_deploy.evaluation.tune_results import Outcome, TuneOptions
from sait_deploy.evaluation.tune_splits import SplitOptions, make_splits
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.embeddings import nearest
from tests.evaluation.tunings import GRID


def options(images: Path, limit: float = 40.0, **changes: object) -> TuneOptions:
    made = TuneOptions(max_recall_drop=limit, splits=SplitOptions(images), grid=GRID, threads=1)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def embedder(embedders: list[Artifact], tmp_path: Path) -> Artifact:
    """The adaptive embedder, to write points beside."""
    return open_artifact(Path(shutil.copytree(embedders[2].path, tmp_path / embedders[2].path.name)))


@pytest.mark.parametrize("recall_at", [1, 5])
def test_what_is_limited_is_the_share_of_images_whose_nearest_is_missed(
    recall_at: int, embedder: Artifact, images: Path
) -> None:
    asked = options(images, recall_at=recall_at)
    result = tune(embedder, asked)
    assert result.outcome is Outcome.TUNED, result.message
    places = list(make_splits(embedder.manifest.model, asked.splits).calibration.images)
    runner = load(embedder, options=RunOptions(threads=1))
    batch = runner.preprocess(places)
    dense = nearest(runner.run(batch, mass=1.0).logits)
    for trial in result.trials:
        found = nearest(runner.run(batch, mass=trial.candidate.share).logits)
        missed = int((~recalled(dense, found, recall_at)).sum())
        assert trial.judgement.value_percent == pytest.approx(100 * missed / len(places))
        assert trial.judgement.bound_percent == pytest.approx(upper_bound(missed, len(places), 0.95))
        assert trial.dense_percent is None
    (tuned,) = read_points(embedder.path, embedder.manifest)
    assert tuned.evidence.measure == f"recall@{recall_at}"
    assert tuned.evidence.calibration.bound_percent <= 40
    assert f"points of recall@{recall_at} lost" in result.message
    assert any(f"among the {len(places)} images" in note for note in result.notes)


def test_a_limit_that_few_images_cannot_show_needs_more(embedder: Artifact, images: Path) -> None:
    result = tune(embedder, options(images, limit=0.5))
    assert result.outcome is Outcome.TOO_FEW_IMAGES
    assert result.images_needed == Limit(Measure.DISAGREEMENT, 0.5, 0.95).images_needed()


def test_recall_among_nearly_all_images_is_refused(embedder: Artifact, images: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for place in sorted(images.iterdir())[:22]:
        shutil.copy(place, few)
    with pytest.raises(InvalidArgument, match="11 images are too few for recall@10"):
        tune(embedder, options(few, recall_at=10))


def test_recall_is_of_embeddings(tiny_adaptive: Artifact, embedder: Artifact, images: Path) -> None:
    with pytest.raises(InvalidArgument, match="recall is of embeddings, and this model has 5 classes"):
        tune(tiny_adaptive, options(images))
    with pytest.raises(InvalidArgument, match="without a head"):
        tune(embedder, TuneOptions(max_drop=1.0, splits=SplitOptions(images)))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_recall_drop": 1.0, "max_drop": 1.0},
        {"max_recall_drop": 1.0, "recall_at": 2},
        {"max_disagreement": 1.0, "recall_at": 5},
        {"max_recall_drop": 0.0},
        {"max_recall_drop": float(np.nan)},
        {},
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        TuneOptions(**changes)  # type: ignore[arg-type]  # each of its own type
