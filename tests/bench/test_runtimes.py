"""Which runtimes are measured, what each can run, and what a report says of those that cannot."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from sait_deploy import demo
from sait_deploy.artifacts.folder import MANIFEST_FILE, Artifact
from sait_deploy.artifacts.points import BatchPoint, PointChoice
from sait_deploy.bench.groups import GroupPlan, runtimes_for
from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.results import AccuracyMeasure, Refusal, Report, Variant
from sait_deploy.bench.run import BenchOptions, bench, with_baseline
from sait_deploy.bench.runtimes import open_session
from sait_deploy.bench.variants import NO_SWEEP, runnable_variants
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.cuda import find_device
from sait_deploy.engine.folder import engine_folders
from sait_deploy.engine.options import BatchRange, BuilderChoice, EngineOptions
from sait_deploy.errors import ArtifactError, InvalidArgument, MissingDependency, ModelError, RuntimeUnavailable
from sait_deploy.reports.table import Note, Severity
from sait_deploy.runtime import Output, Runner, RunOptions
from sait_deploy.runtime.answers import RawOutput
from sait_deploy.runtime.batches import portions
from sait_deploy.runtime.onnxruntime import OnnxRuntimeRunner
from tests.exported import TinyExport

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"
ORT, TORCH, RTX = "onnxruntime", "torch", "tensorrt-rtx"
QUICK = BenchOptions(batches=(1, 2), threads=1, images=demo.IMAGES / "3", warmup=0, duration=0.01)
ENGINE = EngineOptions(BuilderChoice.TENSORRT_RTX, targets=("sm89",), batch=BatchRange(1, 2, 4))

no_gpu = pytest.mark.skipif(find_device() is not None, reason="engines run here")


@pytest.fixture(scope="module")
def report(demo_workspace: Path) -> Report:
    """Two runtimes that run everywhere."""
    return bench(with_baseline([demo_workspace / PRUNED]), replace(QUICK, runtimes=(ORT, TORCH, ORT)))


@pytest.fixture(scope="module")
def built(demo_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose artifacts have an engine. Read it only: copy it to change it."""
    pytest.importorskip("tensorrt_rtx")
    place = Path(shutil.copytree(demo_workspace, tmp_path_factory.mktemp("built") / "artifacts"))
    for artifact in with_baseline([place / PRUNED]):
        build_engine(artifact, ENGINE)
    return place


def of(report: Report, runtime: str) -> list[Variant]:
    return [variant for variant in report.variants if variant.runtime == runtime]


def test_every_runtime_has_its_own_dense_and_its_own_rounds(report: Report) -> None:
    assert [info.name for info in report.groups] == ["onnxruntime", "torch"]
    assert len({variant.id for variant in report.variants}) == 4
    for runtime in (ORT, TORCH):
        dense, pruned = of(report, runtime)
        assert (dense.label, dense.baseline, pruned.label, pruned.baseline) == ("dense", True, "density 0.6", False)
        for batch in QUICK.batches:
            base, row = (r for r in report.rows if r.batch == batch and r.variant in (dense.id, pruned.id))
            assert base.speedup is None and row.speedup is not None and row.stages is None
            turns = [slice(start, None, row.batches) for start in range(row.batches)]
            times = np.array([np.median(base.seconds[turn]) for turn in turns])
            ratios = [np.median(np.array(base.seconds[turn]) / row.seconds[turn]) for turn in turns]
            assert row.speedup.median == pytest.approx(times.sum() / (times / ratios).sum())


def test_every_runtime_says_what_is_behind_it(report: Report) -> None:
    ort, torch = (info.environment for info in report.groups)
    assert ort["provider"] == "CPUExecutionProvider" and "provider" not in torch
    assert torch["device"] == "cpu" and "device" not in ort
    assert "runtime" not in ort | torch | report.environment


def test_notes_name_the_runtime_and_nothing_is_said_twice(tiny: TinyExport) -> None:
    """Of weights that were never trained sparse, of which it is said."""
    report = bench([tiny.dense, tiny.half], replace(QUICK, runtimes=(ORT, TORCH)))
    found = [note.text.partition(" is ")[0] for note in report.notes if note.text.startswith("break-even: ")]
    assert found == ["break-even: density 0.5 on onnxruntime", "break-even: density 0.5 on torch"]
    assert sum("never trained sparse" in note.text for note in report.notes) == 1
    ort, torch = (of(report, runtime)[1].id for runtime in (ORT, TORCH))
    assert {(flips.variant, flips.between) for flips in report.flips} == {
        (ort, "batch 1 and 4"),
        (ort, "onnxruntime and torch"),
        (torch, "batch 1 and 4"),
    }


def test_progress_says_on_which_runtime(demo_workspace: Path) -> None:
    steps: list[str] = []

    def progress(step: str, share: float | None = None, /) -> None:
        steps.append(step)

    bench(with_baseline([demo_workspace / DENSE]), replace(QUICK, batches=(1,), runtimes=(ORT, TORCH)), progress)
    assert [step for step in dict.fromkeys(steps) if "batch" in step] == [
        "onnxruntime: batch 1: dense alone, 0.01 s",
        "torch: batch 1: dense alone, 0.01 s",
        "batch 1: one of each of 2 groups in turn, 0.01 s",
    ]


def test_onnxruntime_is_measured_where_there_is_no_engine(demo_workspace: Path) -> None:
    artifacts = with_baseline([demo_workspace / PRUNED])
    assert runtimes_for(artifacts, ()) == (ORT,)
    assert runtimes_for(artifacts, (TORCH, RTX, TORCH)) == (TORCH, RTX)


def test_engines_of_any_artifact_are_measured_too(built: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(built, tmp_path / "copied"))
    assert runtimes_for(with_baseline([place / PRUNED]), ()) == (ORT, RTX)
    shutil.rmtree(place / DENSE / "engines")
    assert runtimes_for(with_baseline([place / PRUNED]), ()) == (ORT, RTX)
    assert runtimes_for(with_baseline([place / DENSE]), ()) == (ORT,)
    assert runtimes_for(with_baseline([place / PRUNED]), (TORCH,)) == (TORCH,)


@pytest.mark.parametrize("damage", ["", "{}", "gone"])
def test_an_engine_without_its_manifest_is_known_by_its_folder(built: Path, tmp_path: Path, damage: str) -> None:
    place = Path(shutil.copytree(built, tmp_path / "copied"))
    for name in (DENSE, PRUNED):
        (folder,) = (place / name / "engines").iterdir()
        (folder / MANIFEST_FILE).unlink()
        if damage != "gone":
            (folder / MANIFEST_FILE).write_text(damage)
    artifacts = with_baseline([place / PRUNED])
    assert runtimes_for(artifacts, ()) == (ORT, RTX)
    for artifact in artifacts:
        (folder,) = engine_folders(artifact)
        folder.rename(folder.with_name("tensorrt-11.4-sm89-fp16"))
    assert runtimes_for(artifacts, ()) == (ORT, "tensorrt")


@no_gpu
def test_engines_that_cannot_run_here_have_a_refusal_and_the_rest_is_measured(built: Path) -> None:
    steps: list[str] = []
    report = bench(with_baseline([built / PRUNED]), QUICK, lambda step, share=None: steps.append(step))
    dense, pruned = of(report, RTX)
    assert [(refusal.variant, refusal.batches) for refusal in report.refusals] == [
        (dense.id, (1, 2)),
        (pruned.id, (1, 2)),
    ]
    assert {refusal.exit_code for refusal in report.refusals} <= {
        RuntimeUnavailable.exit_code,
        MissingDependency.exit_code,
    }
    assert all(refusal.reason and refusal.hint for refusal in report.refusals)
    assert {row.variant for row in report.rows} == {variant.id for variant in of(report, ORT)}
    assert (dense.accuracy, pruned.accuracy, report.groups[1].environment) == (None, None, {})
    assert not [note for note in report.notes if "tensorrt" in note.text]
    assert steps[-1] == f"tensorrt-rtx: nothing can run here: {report.refusals[0].reason}"
    assert from_json(to_json(report)).refusals == report.refusals


@no_gpu
def test_a_report_in_which_nothing_ran_is_one_too(built: Path) -> None:
    report = bench(with_baseline([built / DENSE]), replace(QUICK, runtimes=(RTX,)))
    (variant,) = report.variants
    assert (report.rows, report.flips, report.notes) == ((), (), ())
    assert [refusal.variant for refusal in report.refusals] == [variant.id]
    assert from_json(to_json(report)) == report


class Particular(OnnxRuntimeRunner):
    """A stand-in for an engine: it takes few batch sizes, and is of the kind that its artifact says."""

    batch_range = (2, 3)
    kinds: ClassVar[dict[str, str]] = {}

    @property
    def kind(self) -> str:
        return self.kinds.get(self.artifact.path.name, "fp16")

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        if not 2 <= len(images) <= 3:
            raise InvalidArgument(f"it takes 2 to 3 images, not {len(images)}", "build it with another --batch")
        return super()._execute(images, point)


@pytest.fixture
def particular(monkeypatch: pytest.MonkeyPatch) -> type[Particular]:
    monkeypatch.setattr("sait_deploy.runtime.onnxruntime.OnnxRuntimeRunner", Particular)
    monkeypatch.setattr(Particular, "kinds", {})
    return Particular


def test_a_batch_size_that_an_engine_does_not_take_is_refused_alone(
    demo_workspace: Path, report: Report, particular: type[Particular]
) -> None:
    """Accuracy is still that of all images: four here, which it takes as three, and one with two of them again."""
    options = replace(QUICK, batches=(1, 2, 5), runtimes=(ORT,))
    found = bench(with_baseline([demo_workspace / PRUNED]), options)
    dense, pruned = found.variants
    assert [(row.batch, row.variant) for row in found.rows] == [(2, dense.id), (2, pruned.id)]
    assert [(refusal.variant, refusal.batches, refusal.reason) for refusal in found.refusals] == [
        (variant.id, (batch,), f"it takes 2 to 3 images, not {batch}")
        for batch in (1, 5)
        for variant in (dense, pruned)
    ]
    assert [variant.accuracy for variant in found.variants] == [variant.accuracy for variant in of(report, ORT)]
    assert [flips.between for flips in found.flips if flips.variant == pruned.id] == [
        "batch 2 and 3",
        "onnxruntime and torch",
    ]


def test_an_engine_of_another_kind_than_dense_s_is_not_compared_with_it(
    demo_workspace: Path, particular: type[Particular]
) -> None:
    particular.kinds[PRUNED] = "fp32"
    artifacts = with_baseline([demo_workspace / PRUNED])
    session = open_session(GroupPlan(ORT, None, tuple(artifacts)), runnable_variants(artifacts, NO_SWEEP), threads=1)
    assert [variant.label for variant in session.running] == ["dense"]
    (failure,) = session.refused.values()
    assert failure.reason == "it is fp32, and dense is fp16: no speed-up can be told from that"


def missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes one of the artifacts one that cannot be loaded."""
    opened = OnnxRuntimeRunner.__init__

    def refuse(self: OnnxRuntimeRunner, artifact: Artifact, options: RunOptions) -> None:
        if artifact.path.name == name:
            raise ArtifactError(f"{name} has no engine", "build one")
        opened(self, artifact, options)

    monkeypatch.setattr(OnnxRuntimeRunner, "__init__", refuse)


def test_without_dense_the_others_run_and_no_speed_up_is_shown(
    demo_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = with_baseline([demo_workspace / PRUNED])
    missing(DENSE, monkeypatch)
    report = bench(artifacts, replace(QUICK, images=demo.IMAGES, runtimes=(ORT,)))
    dense, pruned = report.variants
    assert report.refusals == (Refusal(dense.id, (1, 2), f"{DENSE} has no engine", "build one", 5),)
    assert [(row.variant, row.speedup, row.share) for row in report.rows] == [(pruned.id, None, None)] * 2
    assert dense.accuracy is None
    assert pruned.accuracy is not None and pruned.accuracy.measure is AccuracyMeasure.TOP1
    (note,) = (note for note in report.notes if "no speed-up" in note.text)
    assert note == Note("no speed-up on onnxruntime at batch 1, 2: dense cannot run there", Severity.WARNING)
    assert not [note for note in report.notes if "break-even" in note.text]
    assert from_json(to_json(report)).refusals == report.refusals


def test_what_fails_while_it_is_judged_is_refused(demo_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is another than that of a runtime that is not there, and stays so."""
    run_at = Runner.run_at

    def fail(runner: Runner, images: NDArray[np.float32], choice: PointChoice) -> Output:
        if runner.artifact.path.name == PRUNED:
            raise ModelError("image 0 of the batch: its logits are not finite numbers", "check the weights")
        return run_at(runner, images, choice)

    monkeypatch.setattr(Runner, "run_at", fail)
    report = bench(with_baseline([demo_workspace / PRUNED]), replace(QUICK, runtimes=(ORT,)))
    (refusal,) = report.refusals
    assert (refusal.variant, refusal.batches, refusal.exit_code) == (report.variants[1].id, (1, 2), 4)
    assert {row.variant for row in report.rows} == {report.variants[0].id}


def test_what_fails_in_the_middle_of_measuring_stops_all_of_its_batch(
    demo_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise RuntimeUnavailable("CUDA says cudaErrorIllegalAddress (700)", "see doctor")

    monkeypatch.setattr(Runner, "stages", gone)
    report = bench(with_baseline([demo_workspace / PRUNED]), replace(QUICK, runtimes=(ORT,)))
    assert report.rows == ()
    assert [refusal.batches for refusal in report.refusals] == [(1, 2), (1, 2)]


def test_where_runners_differ_it_is_said_of_which_variants(tiny: TinyExport, monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(runner: Runner) -> dict[str, str]:
        fused = "4 of 4" if runner.artifact.manifest.pruning is None else "3 of 4"
        return {"runtime": "r", "TensorRT": "11.4", "fused attention": fused}

    monkeypatch.setattr(OnnxRuntimeRunner, "environment", property(blocks))
    artifacts = [tiny.dense, tiny.half]
    session = open_session(GroupPlan(ORT, None, tuple(artifacts)), runnable_variants(artifacts, NO_SWEEP), threads=1)
    assert session.info().environment == {
        "TensorRT": "11.4",
        "fused attention": "4 of 4 (dense); 3 of 4 (density 0.5)",
    }


@given(images=st.integers(1, 70), wanted=st.integers(1, 40), fewest=st.integers(1, 9), more=st.integers(0, 30))
def test_portions_are_batches_that_a_runner_takes(images: int, wanted: int, fewest: int, more: int) -> None:
    parts = portions(images, wanted, (fewest, fewest + more))
    assert all(fewest <= len(part) <= fewest + more for part in parts)
    numbers = np.concatenate(parts)
    assert_array_equal(numbers[:images], np.arange(images))
    assert 0 <= len(numbers) - images < fewest
    assert numbers.max() == images - 1
