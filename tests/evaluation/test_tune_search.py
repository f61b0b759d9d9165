"""Tuning over families of points, and over blocks and scores."""

from __future__ import annotations

from pathlib import Path

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.evaluation.tune import tune
from sait_deploy.evaluation.tune_results import Outcome, Search
from sait_deploy.evaluation.tune_search import list_exports
from sait_deploy.evaluation.tune_trials import PointFamily, candidates
from sait_deploy.tokens import OperatingPoint, Score
from tests.evaluation.tunings import EXPORTED, options


def test_of_two_families_the_cheaper_point_is_taken_at_a_stricter_bound(adaptive: Artifact, images: Path) -> None:
    alone = tune(adaptive, options(images))
    both = tune(adaptive, options(images, families=(PointFamily.MASS, PointFamily.DENSITY), name="both"))
    assert both.sequences == 2
    assert both.trials[0].judgement.bound_percent > alone.trials[0].judgement.bound_percent
    assert both.trials[0].judgement.value_percent == alone.trials[0].judgement.value_percent
    passing = [trial for trial in both.trials if trial.passes]
    assert {trial.candidate.family for trial in both.trials} == {PointFamily.MASS, PointFamily.DENSITY}
    assert both.chosen is not None
    assert both.chosen.macs.per_image == min(trial.macs.per_image for trial in passing)


def test_densities_keep_the_same_of_every_image(adaptive: Artifact, images: Path) -> None:
    result = tune(adaptive, options(images, limit=20.0, families=(PointFamily.DENSITY,), grid=(0.999, 0.98, 0.95, 0.9)))
    points = [trial.candidate.point for trial in result.trials]
    assert all(point.min_keep == point.max_keep < 36 for point in points)
    assert all(trial.kept.sd == 0 and trial.kept.most == trial.candidate.point.max_keep for trial in result.trials)


def test_candidates_fall_from_safe_to_cheap(adaptive: Artifact) -> None:
    geometry = adaptive.manifest.model.geometry
    grid = tuple(share / 100 for share in range(99, 0, -1))
    masses = candidates(PointFamily.MASS, grid, geometry)
    assert [one.point for one in masses] == [OperatingPoint(share, 1, 36) for share in grid]
    kept = [one.point.max_keep for one in candidates(PointFamily.DENSITY, grid, geometry)]
    assert kept == list(range(35, 0, -1)), "each number of tokens once, all of them never"


def test_masses_stay_within_limits(adaptive: Artifact, images: Path) -> None:
    result = tune(adaptive, options(images, limit=60.0, grid=(0.6, 0.3, 0.1), min_keep=5, max_keep=12))
    assert result.outcome is Outcome.TUNED and result.file is not None
    assert [trial.candidate.point for trial in result.trials] == [OperatingPoint(m, 5, 12) for m in (0.6, 0.3, 0.1)]
    assert all(5 <= trial.kept.mean <= trial.kept.most <= 12 for trial in result.trials)
    assert result.trials[-1].kept.mean < 12
    written = open_artifact(result.artifact).manifest.pruning
    assert written is not None and result.chosen is not None
    assert written.points[-1].point == result.chosen.candidate.point


def test_a_search_compares_other_artifacts_of_the_same_weights(adaptive: Artifact, images: Path) -> None:
    workspace = Workspace(adaptive.path.parent)
    before = workspace.last_export()
    nothing = tune(adaptive, options(images, grid=(0.3,), search=(Search.SCORE,)))
    assert nothing.outcome is Outcome.NOTHING_PASSES and len(nothing.trials) == 2
    assert [workspace.root / name for name in nothing.exported] == [p for p in workspace.artifacts() if "cls" in p.name]
    assert workspace.last_export() == before, "what was exported last stays where no point is found"
    result = tune(adaptive, options(images, search=(Search.SCORE,)))
    assert result.outcome is Outcome.TUNED, result.message
    assert result.sequences == 2
    assert {trial.name for trial in result.trials} == {adaptive.path.name, *nothing.exported}
    best = min((trial for trial in result.trials if trial.passes), key=lambda trial: trial.macs.per_image)
    assert result.chosen == best and result.artifact == workspace.root / best.name
    assert workspace.last_export()[-1] == result.artifact
    opened = open_artifact(result.artifact)
    assert opened.manifest.pruning is not None
    assert [info.name for info in opened.manifest.pruning.points] == [*EXPORTED, "tuned"]
    assert opened.manifest.weights.sha256 == adaptive.manifest.weights.sha256


def test_a_search_lists_blocks_and_scores(adaptive: Artifact) -> None:
    def listed(*search: Search) -> list[tuple[Score, int | None]]:
        return [(export.score, export.prune_at) for export in list_exports(adaptive, search).exports]

    assert listed(Search.PRUNE_AT) == [(Score.MEAN, 2), (Score.MEAN, 3), (Score.MEAN, 4)]
    assert listed(Search.SCORE) == [(Score.CLS, 1)]
    assert len(listed(Search.PRUNE_AT, Search.SCORE)) == 7
    assert (Score.MEAN, 1) not in listed(Search.PRUNE_AT, Search.SCORE), "the artifact given is one of them already"
