"""Adaptive artifacts whose tokens have to hold a multiple of uniform importance, on every runtime without a GPU."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sait_deploy.artifacts.folder import MANIFEST_FILE, Artifact, open_artifact
from sait_deploy.artifacts.points import PointChoice, PointRequest, mass_point, threshold_point
from sait_deploy.bench.variants import NO_SWEEP, runnable_variants
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.rows import of_point
from sait_deploy.evaluation.tune import tune
from sait_deploy.evaluation.tune_results import TuneOptions
from sait_deploy.evaluation.tune_splits import SplitOptions
from sait_deploy.exporting.parity import MASS_ONE
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.exporting.stage import export_model
from sait_deploy.plugins.mass_token_select.threshold import limits_by_threshold
from sait_deploy.quantization.calibrate import calibration_points
from sait_deploy.runtime import load
from sait_deploy.tokens import OperatingPoint
from tests.evaluation.blotches import labelled_by, row_of
from tests.evaluation.tunings import draw
from tests.exported import IMAGE_SIZE, TinyExport, copied
from tests.tiny import random_batch

PATCHES = 36
THRESHOLD = 1.05
POINTS = (PointRequest("alone", 1.0), PointRequest("wide", 1.0, 20), mass_point(0.3))


@pytest.fixture(scope="module")
def artifact(tiny: TinyExport, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("threshold")
    _, made = export_model(tiny.model, ExportOptions(points=POINTS, threshold=THRESHOLD, output=folder))
    return made


def test_the_manifest_says_the_threshold(artifact: Artifact) -> None:
    assert artifact.manifest.name == "test_vit-96px-threshold1.05-adaptive"
    assert artifact.manifest.pruning is not None and artifact.manifest.pruning.threshold == THRESHOLD
    assert open_artifact(artifact.path) == artifact
    with_one = {info.name: info.kept for info in artifact.manifest.pruning.points}
    assert 1 < with_one["alone"].mean < PATCHES and with_one["alone"].sd > 0
    assert with_one["wide"].mean >= 20
    assert with_one["mass0.3"].mean < with_one["alone"].mean


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_images_keep_what_reaches_the_threshold(artifact: Artifact, runtime: str) -> None:
    images = random_batch((5, 3, IMAGE_SIZE, IMAGE_SIZE))
    runner = load(artifact, runtime)

    for name, least in (("alone", 1), ("wide", 20)):
        selection = runner.select_at(images, PointChoice(point=name))
        limits = np.array([[least, PATCHES]] * 5, np.int32)
        wanted = limits_by_threshold(selection.importance, limits, THRESHOLD)[:, 1]
        np.testing.assert_array_equal(selection.keep.sum(axis=1) - 1, wanted)
        np.testing.assert_array_equal(runner.run_at(images, PointChoice(point=name)).kept, wanted)
    forced = runner.run_at(images, PointChoice(mass=1.0, min_keep=7, max_keep=7))
    assert forced.kept.tolist() == [7] * 5


def test_a_threshold_without_points_decides_alone(tiny: TinyExport, tmp_path: Path) -> None:
    options = ExportOptions(threshold=1.5, output=tmp_path)
    _, plan = plan_exports(tiny.model, options)
    assert plan.points == (("threshold1.5", OperatingPoint(1.0, 1, PATCHES)),)
    _, made = export_model(tiny.model, options)
    assert [one.label for one in runnable_variants([made], NO_SWEEP)] == ["threshold 1.5"]
    assert (
        plan_exports(tiny.model, ExportOptions(threshold=2))[1].id
        == plan_exports(  # type: ignore[arg-type]
            tiny.model, ExportOptions(threshold=2.0)
        )[1].id
    )


@pytest.mark.parametrize(
    ("request_", "label"),
    [
        (threshold_point(1.5), "threshold 1.5"),
        (threshold_point(1.5, 8), "threshold 1.5, 8 to 36"),
        (PointRequest("threshold1.5", 0.5), "threshold1.5"),
        (mass_point(0.5), "mass 0.5, threshold 1.5"),
    ],
)
def test_rows_say_the_whole_point(request_: PointRequest, label: str) -> None:
    assert of_point(request_, PATCHES, 1.5).label == label


def test_all_tokens_are_calibrated_on(artifact: Artifact) -> None:
    every = calibration_points(artifact.manifest)[MASS_ONE]
    runner = load(artifact, "onnxruntime")
    images = random_batch((3, 3, IMAGE_SIZE, IMAGE_SIZE))
    assert runner.run_at(images, every).kept.tolist() == [PATCHES] * 3


def test_tuning_compares_with_the_dense_model(artifact: Artifact, tiny: TinyExport, tmp_path: Path) -> None:
    """Labels are dense's answers, which the pruned model does not give to all."""
    places = draw(tmp_path / "drawn", 200, 1)
    dense = load(tiny.dense, "onnxruntime")
    wanted = dense.run(dense.preprocess(list(map(str, places)))).logits.argmax(axis=1)
    labels = tiny.model.info.labels or tuple(map(str, range(tiny.model.info.classes)))
    for place, label in zip(places, wanted, strict=True):
        folder = tmp_path / "labelled" / labels[label]
        folder.mkdir(parents=True, exist_ok=True)
        place.rename(folder / place.name)
    copy = copied(artifact, tmp_path / "copy")

    result = tune(copy, TuneOptions(max_drop=50.0, splits=SplitOptions(tmp_path / "labelled"), grid=(0.9,), threads=1))

    assert result.trials[0].dense_percent == 100
    assert result.trials[0].kept.most < PATCHES


def test_adaptive_artifacts_without_one_keep_their_ids(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    points = (mass_point(0.6),)
    without, with_one, other = (
        plan_exports(tiny.model, ExportOptions(points=points, threshold=t))[1].id for t in (None, 1.5, 2.0)
    )
    assert len({without, with_one, other}) == 3
    assert "threshold" not in json.loads((tiny_adaptive.path / MANIFEST_FILE).read_text())["pruning"]


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 36.5, float("nan")])
def test_thresholds_that_cannot_be_are_refused(tiny: TinyExport, threshold: float) -> None:
    with pytest.raises(InvalidArgument, match=r"at most 36, the patch tokens|from 0 on|cannot name a point"):
        plan_exports(tiny.model, ExportOptions(threshold=threshold))


@pytest.mark.parametrize(("field", "value"), [("threshold", 0), ("threshold", 99.0), ("density", "0.5")])
def test_a_manifest_whose_threshold_cannot_be_is_refused(
    artifact: Artifact, tmp_path: Path, field: str, value: object
) -> None:
    copy = copied(artifact, tmp_path)
    document = json.loads((copy.path / MANIFEST_FILE).read_text())
    document["pruning"][field] = value
    (copy.path / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(ArtifactError):
        open_artifact(copy.path)


def test_evaluations_and_benchmarks_name_it_and_know_that_images_differ(artifact: Artifact, tiny: TinyExport) -> None:
    found = evaluate(artifact, labelled_by(tiny.model, 8), EvaluateOptions(lower_resolutions=()))
    row = row_of(found, "alone")
    assert (row.kind, row.kept_max > row.kept_mean) == ("mass", True)
    assert not any("trained" in note.text and "mass" in note.text for note in found.notes)

    variants = {one.label: one for one in runnable_variants([artifact], NO_SWEEP)}
    assert list(variants) == ["alone, threshold 1.05", "wide, threshold 1.05", "mass 0.3, threshold 1.05"]
    alone = variants["alone, threshold 1.05"]
    assert alone.counts_tokens
    assert alone.pruning is not None and alone.pruning.threshold == THRESHOLD
    assert not dataclasses.replace(alone, point=OperatingPoint(1.0, 7, 7)).counts_tokens
