"""The bench stage on real artifacts: what goes with which baseline, and what the report says."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sait_deploy
from sait_deploy import demo
from sait_deploy.artifacts.folder import MANIFEST_FILE, MODEL_FILE, open_artifact
from sait_deploy.bench.clock import FEWEST_ROUNDS
from sait_deploy.bench.notes import break_even_text
from sait_deploy.bench.results import AccuracyMeasure, BenchRow, Interval, Report, Timing
from sait_deploy.bench.run import AccuracyOf, BenchOptions, bench, with_baseline
from sait_deploy.bench.stats import make_row
from sait_deploy.errors import ImageError, InvalidArgument
from sait_deploy.images import dataset
from sait_deploy.reports.table import Severity
from tests.exported import TinyExport, copied

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"
QUICK = BenchOptions(batches=(1, 3), threads=1, images=demo.IMAGES, warmup=1, duration=0.02)
FEW = replace(QUICK, batches=(1,), images=demo.IMAGES / "3")
"""On four images, unlabelled."""


def rewrite(artifact: Path, **fields: object) -> Path:
    """Changes fields of an artifact's manifest."""
    manifest = artifact / MANIFEST_FILE
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | fields))
    return artifact


@pytest.fixture
def workspace(demo_workspace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_workspace, tmp_path / "copied"))


@pytest.fixture(scope="module")
def report(demo_workspace: Path) -> Report:
    return bench(with_baseline([demo_workspace / PRUNED]), QUICK)


def test_the_baseline_comes_first_whatever_was_named_first(demo_workspace: Path) -> None:
    dense, pruned = demo_workspace / DENSE, demo_workspace / PRUNED
    for named in ([pruned], [pruned, dense], [dense, pruned], [dense, pruned, dense]):
        assert [artifact.path for artifact in with_baseline(named)] == [dense, pruned]
    assert [artifact.path for artifact in with_baseline([dense])] == [dense]


def test_the_baseline_is_found_by_its_id_not_its_name(workspace: Path) -> None:
    (workspace / DENSE).rename(workspace / "renamed")
    assert [artifact.path.name for artifact in with_baseline([workspace / PRUNED])] == ["renamed", PRUNED]


def test_artifacts_of_different_baselines_are_not_compared(workspace: Path) -> None:
    other = Path(shutil.copytree(workspace / DENSE, workspace / "other"))
    rewrite(other, id="another-dense")
    for named in ([workspace / DENSE, other], [workspace / PRUNED, other]):
        with pytest.raises(InvalidArgument, match="do not share a dense baseline"):
            with_baseline(named)


def test_rows_are_batch_by_batch_dense_first(report: Report) -> None:
    dense, pruned = (variant.id for variant in report.variants)
    assert [(row.batch, row.variant) for row in report.rows] == [(1, dense), (1, pruned), (3, dense), (3, pruned)]


def test_rows_hold_what_was_measured(report: Report, demo_workspace: Path) -> None:
    manifest = open_artifact(demo_workspace / PRUNED).manifest
    for dense, pruned in zip(report.rows[::2], report.rows[1::2], strict=True):
        assert len(dense.seconds) == len(pruned.seconds) >= FEWEST_ROUNDS
        assert (dense.kept_mean, dense.kept_max) == (144, 144)
        assert (pruned.kept_mean, pruned.kept_p95, pruned.kept_max) == (87, 87, 87)
        assert dense.speedup is None and dense.share is None
        assert pruned.speedup is not None and pruned.share is not None
        turns = [slice(start, None, pruned.batches) for start in range(pruned.batches)]
        times = np.array([np.median(dense.seconds[turn]) for turn in turns])
        ratios = [np.median(np.array(dense.seconds[turn]) / pruned.seconds[turn]) for turn in turns]
        assert pruned.speedup.median == pytest.approx(times.sum() / (times / ratios).sum())
        assert (dense.macs, pruned.macs) == (manifest.macs.dense, manifest.macs.per_image)
        assert pruned.mac_ratio == manifest.macs.ratio > 1
        total = sum(float(np.median(pruned.seconds[turn])) for turn in turns)
        assert pruned.images_per_second == pytest.approx(pruned.batch * pruned.batches / total)


def test_variants_say_what_ran(report: Report, demo_workspace: Path) -> None:
    for variant, name, label in zip(report.variants, (DENSE, PRUNED), ("dense", "density 0.6"), strict=True):
        manifest = open_artifact(demo_workspace / name).manifest
        assert (variant.id, variant.label, variant.runtime) == (f"{manifest.id}@onnxruntime", label, "onnxruntime")
        assert variant.precision == "fp32"
        assert variant.baseline == (label == "dense")
        assert variant.weights_sha256 == manifest.weights.sha256
        assert variant.model_sha256 == manifest.files[MODEL_FILE]
        assert not variant.random_weights
        assert variant.accuracy is not None and variant.accuracy.images == 40


def test_accuracy_is_that_of_the_runner_s_own_answers(report: Report, demo_workspace: Path) -> None:
    """Computed anew here, one image at a time."""
    images = dataset.folder_dataset(demo.IMAGES, demo.LABELS, len(demo.LABELS))
    assert images.labels is not None
    answers = {}
    for name in (DENSE, PRUNED):
        runner = sait_deploy.load(demo_workspace / name)
        answers[name] = np.array([int(runner.predict(image, top=1)[0].labels[0]) for image in images.images])
    for variant, name in zip(report.variants, (DENSE, PRUNED), strict=True):
        assert variant.accuracy is not None
        assert variant.accuracy.measure is AccuracyMeasure.TOP1
        assert variant.accuracy.percent == pytest.approx(100 * (answers[name] == images.labels).mean())


def test_without_accuracy_there_is_speed_alone(demo_workspace: Path) -> None:
    report = bench(with_baseline([demo_workspace / PRUNED]), replace(QUICK, accuracy=AccuracyOf.NONE))
    assert [variant.accuracy for variant in report.variants] == [None, None]
    assert len(report.rows) == 2 * len(QUICK.batches)


def test_the_report_says_how_and_where(report: Report) -> None:
    assert (report.model, report.timing) == (demo.NAME, Timing.END_TO_END)
    assert report.options["images"] == str(demo.IMAGES)
    assert report.options["warm-up rounds"] == "1"
    assert report.environment["threads"] == "1"
    assert all(report.environment.values())
    (ran,) = report.groups
    assert (ran.name, ran.environment["provider"]) == ("onnxruntime", "CPUExecutionProvider")
    assert report.refusals == ()


def test_weights_trained_sparse_get_no_such_note(report: Report, tiny: TinyExport, tmp_path: Path) -> None:
    """The demonstration's, and those of which a manifest says so."""
    for artifact in (tiny.dense, tiny.half):
        weights = dataclasses.asdict(artifact.manifest.weights)
        rewrite(copied(artifact, tmp_path).path, weights=weights | {"trained_sparse": True})
    changed = bench(with_baseline([tmp_path / tiny.half.path.name]), FEW)
    for notes, label in ((changed.notes, "density 0.5"), (report.notes, "density 0.6")):
        assert not [note for note in notes if "never trained sparse" in note.text]
        assert sum(note.text.startswith(f"break-even: {label} is ") for note in notes) == 1


def test_dense_alone(tiny: TinyExport) -> None:
    """Weights never trained sparse cost it nothing, so that nothing is said of them."""
    said: list[str] = []
    report = bench([tiny.dense], replace(FEW, batches=(2,)), lambda step, share=None, /: said.append(step))
    assert [row.speedup for row in report.rows] == [None]
    assert report.flips == ()
    assert not [note for note in report.notes if note.severity is not Severity.WARNING]
    assert said[-1] == "batch 2: dense alone, 0.02 s"


def test_without_images_the_demonstration_s_are_composed(demo_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(dataset, "GENERATED_COUNT", 50)
    report = bench(with_baseline([demo_workspace / PRUNED]), replace(FEW, images=None))
    assert report.options["images"] == "50 composed held-out digits"
    assert [variant.accuracy.images for variant in report.variants if variant.accuracy] == [50, 50]


def test_batches_larger_than_the_images_there_are(demo_workspace: Path) -> None:
    """The images are repeated."""
    options = replace(FEW, batches=(7,))
    rows = bench(with_baseline([demo_workspace / PRUNED]), options).rows
    assert {(row.batch, row.batches, row.kept_mean) for row in rows} == {(7, 4, 144), (7, 4, 87)}


def test_an_image_that_cannot_be_read(demo_workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        bench(with_baseline([demo_workspace / PRUNED]), replace(QUICK, images=tmp_path))


@pytest.mark.parametrize(
    "wrong", [{"batches": ()}, {"batches": (1, 0)}, {"threads": 0}, {"warmup": -1}, {"duration": float("nan")}]
)
def test_options_that_cannot_be_run(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        replace(QUICK, **wrong)  # type: ignore[arg-type]


def row(batch: int, low: float) -> BenchRow:
    made = make_row(batch=batch, variant="v", seconds=[1.0], dense_seconds=[1.0], kept=[1], macs=1, dense_macs=1)
    return replace(made, speedup=Interval(low, low + 0.1, low + 0.2))


@pytest.mark.parametrize(
    ("lows", "text"),
    [
        ({1: 1.1, 8: 1.2}, "faster than dense from batch 1 on"),
        ({1: 0.9, 8: 1.2, 32: 1.3}, "faster than dense from batch 8 on"),
        ({1: 1.3, 8: 1.2, 32: 0.95}, "surely faster than dense at batch 1, 8 only"),
        ({1: 0.9, 8: 0.95}, "not surely faster than dense at any batch size measured"),
    ],
)
def test_break_even_never_denies_a_speed_up_that_was_measured(lows: dict[int, float], text: str) -> None:
    assert break_even_text([row(batch, low) for batch, low in lows.items()], "v") == text
