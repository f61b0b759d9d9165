"""Tuning real artifacts on ONNX Runtime: what is chosen, what is measured, and when dense is recommended."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm

from sait_deploy.artifacts.folder import MANIFEST_FILE, Artifact, open_artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.artifacts.tuned_points import Measure, read_points
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.tune import tune
from sait_deploy.evaluation.tune_results import Outcome, TuneOptions
from sait_deploy.evaluation.tune_splits import SplitOptions, make_splits
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.tokens import OperatingPoint, pruned_macs
from tests.evaluation.tunings import COUNT, EXPORTED, GRID, LIMIT, answers, draw, options
from tests.exported import CLASSES, IMAGE_SIZE
from tests.tiny import randomised, save_weights


def test_the_cheapest_of_the_sequence_that_passes_becomes_a_point(adaptive: Artifact, images: Path) -> None:
    before = (adaptive.path / MANIFEST_FILE).read_bytes()
    result = tune(adaptive, options(images))
    assert result.outcome is Outcome.TUNED, result.message
    verdicts = [trial.passes for trial in result.trials]
    assert verdicts == [True] * (len(verdicts) - 1) + [False], "tried in order, to the first that fails"
    assert [trial.candidate.share for trial in result.trials] == list(GRID[: len(verdicts)])
    assert result.chosen == result.trials[-2]
    assert [trial.macs.per_image for trial in result.trials] == sorted(t.macs.per_image for t in result.trials)[::-1]
    opened = open_artifact(result.artifact)
    assert opened.manifest.pruning is not None
    *exported, info = opened.manifest.pruning.points
    assert tuple(point.name for point in exported) == EXPORTED
    assert (info.name, info.point) == ("tuned", result.chosen.candidate.point)
    assert info.kept == result.chosen.kept and info.macs == result.chosen.macs
    (tuned,) = read_points(adaptive.path, adaptive.manifest)
    evidence = tuned.evidence
    assert (evidence.measure, evidence.limit_percent, evidence.confidence) == (Measure.DISAGREEMENT, LIMIT, 0.95)
    assert (evidence.tried, evidence.sequences, evidence.grid) == (len(verdicts), 1, GRID)
    assert evidence.calibration.images == evidence.check.images == COUNT // 2
    assert evidence.calibration.bound_percent <= LIMIT
    assert evidence.check_passed and evidence.check_confirmed is (evidence.check.bound_percent <= LIMIT)
    assert (adaptive.path / MANIFEST_FILE).read_bytes() == before
    runner = load(opened, options=RunOptions(threads=1))
    picture = runner.preprocess(sorted(images.iterdir())[0])
    named, spelt = (
        runner.run(picture, point="tuned"),
        runner.run(picture, mass=info.point.mass, min_keep=1, max_keep=36),
    )
    assert (named.logits == spelt.logits).all()


def test_what_a_trial_says_is_what_the_images_give(
    adaptive: Artifact, runner: Runner, images: Path, tmp_path: Path
) -> None:
    check = tmp_path / "check"
    draw(check, 40, 2)
    result = tune(adaptive, options(images, check=check))
    places = sorted(images.iterdir())
    dense, _ = answers(runner, places, None)
    for trial in result.trials:
        top, kept = answers(runner, places, trial.candidate.point)
        assert trial.judgement.value_percent == pytest.approx(100 * (top != dense).mean())
        assert trial.kept.images == COUNT
        assert trial.kept.mean == pytest.approx(kept.mean())
        assert trial.kept.most == kept.max()
        costs = [pruned_macs(adaptive.manifest.model.geometry, 1, int(count)) for count in kept]
        assert trial.macs.per_image == pytest.approx(np.mean(costs), abs=1)
    assert result.checked is not None and result.chosen is not None
    top, _ = answers(runner, sorted(check.iterdir()), result.chosen.candidate.point)
    dense, _ = answers(runner, sorted(check.iterdir()), None)
    assert result.checked.judgement.value_percent == pytest.approx(100 * (top != dense).mean())


def test_the_same_images_give_the_same_choice(adaptive: Artifact, images: Path) -> None:
    first, again = (tune(adaptive, options(images)) for _ in range(2))
    assert first.trials == again.trials and first.checked == again.checked
    other = tune(adaptive, options(images, splits=SplitOptions(images, seed=1)))
    assert other.trials != first.trials


def labelled(folder: Path, runner: Runner, places: Sequence[Path], wrong: int) -> Path:
    """Sorts images into the classes that dense gives them; every so many-th into another."""
    top, _ = answers(runner, places, None)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for number, (place, label) in enumerate(zip(places, top, strict=True)):
        other = (label + 1) % CLASSES if wrong and number % wrong == 0 else label
        shutil.copy(place, folder / str(other) / place.name)
    return folder


def test_a_drop_is_what_dense_has_right_less_what_the_point_has(
    adaptive: Artifact, runner: Runner, images: Path, tmp_path: Path
) -> None:
    folder = labelled(tmp_path / "labelled", runner, sorted(images.iterdir()), 4)
    check = labelled(tmp_path / "check", runner, draw(tmp_path / "drawn", 40, 3), 4)
    given = TuneOptions(max_drop=LIMIT, splits=SplitOptions(folder, check), grid=GRID, threads=1)
    result = tune(adaptive, given)
    assert result.limit.measure is Measure.DROP
    places = sorted(folder.rglob("*.png"))
    labels = np.array([int(place.parent.name) for place in places])
    dense, _ = answers(runner, places, None)
    assert 0 < (dense != labels).sum() < COUNT / 3
    for trial in result.trials:
        top, _ = answers(runner, places, trial.candidate.point)
        drop = 100 * ((dense == labels).mean() - (top == labels).mean())
        assert trial.judgement.value_percent == pytest.approx(drop)


def test_too_few_images_are_said_before_anything_runs(adaptive: Artifact, images: Path) -> None:
    said: list[str] = []
    result = tune(adaptive, options(images, limit=0.5), said.append)
    assert (result.outcome, result.images_needed, result.trials) == (Outcome.TOO_FEW_IMAGES, 598, ())
    assert "598" in result.message and "130 images" in result.message
    assert "1196" in result.hint and "dense" in result.hint
    assert not said and not (adaptive.path / "points").exists()


def test_nothing_passes_where_the_first_of_the_order_does_not(adaptive: Artifact, images: Path) -> None:
    result = tune(adaptive, options(images, limit=3.0, grid=(0.5, 0.4)))
    assert result.outcome is Outcome.NOTHING_PASSES
    assert len(result.trials) == 1, "what comes after a failure is not looked at"
    assert "dense is recommended" in result.message
    assert result.chosen is None and not (adaptive.path / "points").exists()


def test_a_point_that_keeps_everything_is_none(adaptive: Artifact, images: Path) -> None:
    result = tune(adaptive, options(images, grid=(0.9999,)))
    assert result.trials[0].passes and result.trials[0].macs.ratio == 1
    assert result.outcome is Outcome.NOTHING_PASSES
    assert "keeps every token" in result.message


def test_undecided_says_how_many_images_would_decide(adaptive: Artifact, images: Path) -> None:
    whole = tune(adaptive, options(images))
    lost = whole.trials[-1].judgement.value_percent
    share = whole.trials[-1].candidate.share
    assert lost > 0
    result = tune(adaptive, options(images, limit=lost + 0.5, grid=(share,)))
    assert result.outcome is Outcome.NOTHING_PASSES
    enough = result.trials[0].images_to_decide
    assert enough is not None and enough > result.calibration.images
    assert f"about {enough} images" in result.hint


def test_a_choice_that_does_not_hold_on_other_images_is_not_written(
    adaptive: Artifact, runner: Runner, images: Path, tmp_path: Path
) -> None:
    places = sorted(images.iterdir())
    point = OperatingPoint(0.8, 1, 36)
    same = answers(runner, places, point)[0] == answers(runner, places, None)[0]
    assert 4 < (~same).sum() < COUNT / 2, "the images should be of both kinds"
    for name, chosen in (("same", same), ("other", ~same)):
        (tmp_path / name).mkdir()
        for place in np.array(places)[chosen]:
            shutil.copy(place, tmp_path / name)
    result = tune(adaptive, options(tmp_path / "same", check=tmp_path / "other", grid=(0.8,)))
    assert result.outcome is Outcome.CHECK_FAILED
    assert result.checked is not None and result.checked.judgement.value_percent == 100
    assert result.chosen is not None and result.chosen.judgement.value_percent == 0
    assert result.file is None and not (adaptive.path / "points").exists()
    assert "dense is recommended" in result.message


def test_features_are_held_to_their_cosine(images: Path, tmp_path: Path) -> None:
    vit = randomised(timm.create_model("test_vit", img_size=IMAGE_SIZE, num_classes=0), seed=3)
    weights = save_weights(vit, tmp_path / "headless.safetensors")
    model = load_model("test_vit", WeightsRequest(WeightsSource.FILE, weights), IMAGE_SIZE)
    headless = export_model(model, ExportOptions(points=(mass_point(0.9),), output=tmp_path / "artifacts"))[-1]
    with pytest.raises(InvalidArgument, match="without a head"):
        tune(headless, TuneOptions(max_drop=1.0, splits=SplitOptions(images)))
    result = tune(headless, options(images, limit=15.0))
    assert result.limit.measure is Measure.COSINE
    runner = load(headless, options=RunOptions(threads=1))
    assert len(result.trials) > 1
    trial = result.trials[1]
    check = SplitOptions(images)
    places = list(make_splits(headless.manifest.model, check).calibration.images)
    one, other = (runner.run(runner.preprocess(places), mass=mass).logits for mass in (1.0, trial.candidate.share))
    cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert trial.judgement.value_percent == pytest.approx(100 * (1 - cosine.mean()), abs=1e-3)
