"""Groups of runtime and precision: what each runs, what is skipped, and what compares them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.bench.across import over_fastest
from sait_deploy.bench.common_tables import across_table, skipped_table
from sait_deploy.bench.groups import plan_groups, with_baseline
from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.results import Report, TurnTimes, names_of
from sait_deploy.bench.run import BenchOptions, bench
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.errors import ArtifactError, InvalidArgument, RuntimeUnavailable
from sait_deploy.runtime import RunOptions
from sait_deploy.runtime.onnxruntime import OnnxRuntimeRunner
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import RUNTIMES, Runtime
from tests.exported import TinyExport
from tests.siblings import with_int8

ORT, EVALUATOR = "onnxruntime", "onnx-evaluator"
FP32, BF16, INT8 = RunPrecision.FP32, RunPrecision.BF16, RunPrecision.INT8
QUICK = BenchOptions(batches=(1, 2), threads=1, images=demo.IMAGES / "3", warmup=0, duration=0.01)
DENSE, HALF = "test_vit-96px-dense", "test_vit-96px-density0.5"


@pytest.fixture
def _evaluator() -> Iterator[None]:
    """A runtime that says it runs bf16 and does not."""
    before = dict(RUNTIMES)
    precisions = {Precision.FP32: (FP32, BF16)}
    RUNTIMES[EVALUATOR] = Runtime(
        "tests.adding.standards_runtime", "EvaluatorRunner", "onnx", "cpu", "run", precisions=precisions
    )
    yield
    RUNTIMES.clear()
    RUNTIMES.update(before)


@pytest.fixture(scope="module")
def workspace(tiny: TinyExport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense and half with an int8 one beside each. Read it only."""
    place = tmp_path_factory.mktemp("precisions")
    with_int8(place, tiny.dense, tiny.half)
    return place


def planned(artifacts: list[Artifact], *precisions: RunPrecision) -> list[tuple[str, list[str]]]:
    plans, skipped = plan_groups(artifacts, (ORT,), precisions)
    assert skipped == []
    return [(plan.name, [artifact.path.name for artifact in plan.artifacts]) for plan in plans]


FLOATS, INT8S = [DENSE, HALF], [f"{DENSE}-int8", f"{HALF}-int8"]


@pytest.mark.parametrize("given", [[HALF], [f"{HALF}-int8"], [HALF, f"{HALF}-int8"], [*INT8S, *FLOATS]])
def test_each_precision_has_its_own_artifacts_and_dense_whichever_are_given(workspace: Path, given: list[str]) -> None:
    opened = with_baseline([workspace / name for name in given])
    wanted = [("onnxruntime int8", INT8S), ("onnxruntime fp32", FLOATS)]
    assert planned(opened, INT8, FP32, INT8) == wanted


def test_without_a_precision_asked_for_what_is_given_runs_as_it_is(workspace: Path) -> None:
    assert planned(with_baseline([workspace / HALF])) == [(ORT, FLOATS)]
    assert planned(with_baseline([workspace / f"{HALF}-int8"])) == [(ORT, INT8S)]
    both = with_baseline([workspace / f"{HALF}-int8", workspace / HALF])
    assert planned(both) == [("onnxruntime fp32", FLOATS), ("onnxruntime int8", INT8S)]


def test_int8_artifacts_of_another_model_do_not_share_a_baseline(workspace: Path, demo_workspace: Path) -> None:
    with pytest.raises(InvalidArgument, match="do not share a dense baseline"):
        with_baseline([workspace / f"{HALF}-int8", demo_workspace / "sait_demo_digits-density0.6"])


def test_an_artifact_without_an_int8_one_is_skipped_alone(tiny: TinyExport, tmp_path: Path) -> None:
    with_int8(tmp_path, tiny.dense)
    shutil.copytree(tiny.half.path, tmp_path / HALF)
    plans, skipped = plan_groups(with_baseline([tmp_path / HALF]), (ORT,), (INT8,))
    assert [artifact.path.name for artifact in plans[0].artifacts] == [f"{DENSE}-int8"]
    (skip,) = skipped
    assert (skip.group, skip.artifact, skip.exit_code) == ("onnxruntime int8", HALF, ArtifactError.exit_code)


@pytest.fixture(scope="module")
def report(workspace: Path) -> Report:
    """Two groups that ran, and one that does not exist."""
    return bench(with_baseline([workspace / HALF]), replace(QUICK, precisions=(FP32, BF16, INT8)))


def test_each_group_is_measured_against_its_own_dense(report: Report) -> None:
    assert [(group.name, group.runtime, group.asked) for group in report.groups] == [
        ("onnxruntime fp32", ORT, FP32),
        ("onnxruntime int8", ORT, INT8),
    ]
    found = [(variant.group, variant.label, variant.precision) for variant in report.variants]
    assert found == [
        (g, label, g.split()[1]) for g in ("onnxruntime fp32", "onnxruntime int8") for label in ("dense", "density 0.5")
    ]
    assert len(set(names_of(report.variants).values())) == len({variant.id for variant in report.variants}) == 4
    assert {variant.artifact for variant in report.variants if variant.asked is INT8} == {
        variant.artifact + "-int8" for variant in report.variants if variant.asked is FP32
    }
    assert report.refusals == ()


def test_a_group_that_does_not_exist_is_one_skipped_line(report: Report) -> None:
    (skip,) = report.skipped
    assert (skip.group, skip.artifact, skip.exit_code) == ("onnxruntime bf16", None, InvalidArgument.exit_code)
    (row,) = skipped_table(report).rows
    assert [cell.text for cell in row.cells[:2]] == ["onnxruntime bf16", "all"]
    assert skip.reason in row.cells[2].text and skip.hint in row.cells[2].text


def test_answers_without_labels_are_compared_with_the_first_dense(report: Report) -> None:
    percents = [variant.accuracy.percent for variant in report.variants if variant.accuracy is not None]
    assert percents[0] == percents[2] == 100, "the int8 ones here have the float graph"
    assert percents[1] == percents[3]


def test_a_report_of_groups_is_read_as_it_was_written(report: Report) -> None:
    back = from_json(to_json(report))
    assert (back.groups, back.skipped, back.variants, back.over_fastest) == (
        report.groups,
        report.skipped,
        report.variants,
        report.over_fastest,
    )
    assert to_json(back) == to_json(report)


def test_an_int8_kept_set_is_compared_with_that_of_the_float_artifact(report: Report) -> None:
    ways = {flips.variant.rpartition("@")[2]: set() for flips in report.flips}  # type: dict[str, set[str]]
    for flips in report.flips:
        ways[flips.variant.rpartition("@")[2]].add(flips.between)
    assert "onnxruntime fp32 and torch" in ways["fp32"]
    assert "onnxruntime int8 and the float artifact on onnxruntime" in ways["int8"]


def test_every_row_stands_over_the_fastest_dense(report: Report) -> None:
    baselines = [variant.id for variant in report.variants if variant.baseline]
    assert {(over.batch, over.variant) for over in report.over_fastest} == {
        (row.batch, row.variant) for row in report.rows
    }
    for batch in QUICK.batches:
        own = [over for over in report.over_fastest if over.batch == batch]
        (fastest,) = {over.fastest for over in own}
        by_id = {over.variant: over.speedup.median for over in own}
        assert by_id[fastest] == 1
        assert fastest in baselines
    together = report.together
    assert {(times.batch, times.variant) for times in together} == {
        (b, name) for b in QUICK.batches for name in baselines
    }


def test_a_precision_that_a_runtime_does_not_run_in_is_skipped(_evaluator: None, workspace: Path) -> None:
    """It says that it does: what ran is checked."""
    asked = replace(QUICK, batches=(1,), runtimes=(EVALUATOR, ORT), precisions=(BF16, FP32))
    report = bench(with_baseline([workspace / DENSE]), asked)
    assert [group.name for group in report.groups] == [f"{EVALUATOR} fp32", "onnxruntime fp32"]
    assert [(skip.group, skip.reason) for skip in report.skipped] == [
        ("onnxruntime bf16", "onnxruntime does not run fp32 artifacts in bf16"),
        (f"{EVALUATOR} bf16", f"{EVALUATOR} runs {DENSE} in fp32 where bf16 was asked for"),
    ]
    assert len(report.over_fastest) == 2


def test_a_report_in_which_all_was_skipped_is_one_too(workspace: Path) -> None:
    report = bench(with_baseline([workspace / DENSE]), replace(QUICK, precisions=(BF16,)))
    assert (report.rows, report.variants, len(report.skipped)) == ((), (), 1)
    assert from_json(to_json(report)) == report


def test_one_group_is_compared_with_no_other(workspace: Path) -> None:
    report = bench(with_baseline([workspace / DENSE]), replace(QUICK, batches=(1,), precisions=(FP32,)))
    assert (report.together, report.over_fastest) == ((), ())
    assert across_table(report).rows == ()


def test_a_point_over_the_fastest_dense_is_a_product_of_two_ratios(report: Report) -> None:
    """With times that are known: int8 dense is twice as fast as fp32 dense in the last pass."""
    dense = {variant.asked: variant.id for variant in report.variants if variant.baseline}
    together = [TurnTimes(2, dense[FP32], (0.4, 0.8), 1), TurnTimes(2, dense[INT8], (0.2, 0.4), 1)]
    found = {over.variant: over for over in over_fastest(report.variants, report.rows, together)}
    assert {over.fastest for over in found.values()} == {dense[INT8]}
    assert found[dense[FP32]].speedup.median == pytest.approx(0.5)
    for variant in report.variants:
        if variant.baseline:
            continue
        rows = {row.variant: row for row in report.rows if row.batch == 2}
        own = paired_ratio(
            rows[dense[variant.asked]].seconds, rows[variant.id].seconds, batches=rows[variant.id].batches
        )
        assert found[variant.id].speedup.median == pytest.approx(own.median * (0.5 if variant.asked is FP32 else 1))


def test_the_table_puts_the_fastest_dense_first_and_then_the_fastest_points(report: Report) -> None:
    table = across_table(report)
    firsts = [row for row in table.rows if row.begins_group]
    assert [row.cells[2].text for row in firsts] == ["the fastest dense"] * len(QUICK.batches)
    assert [row.cells[0].text for row in firsts] == [str(batch) for batch in QUICK.batches]
    for batch in QUICK.batches:
        figures = [
            float(row.cells[2].text.split()[0])
            for row in table.rows
            if row.cells[0].text == str(batch) and not row.reference
        ]
        assert figures == sorted(figures, reverse=True) and len(figures) == 3


def test_a_report_whose_comparison_is_wrong_is_refused(report: Report) -> None:
    point = next(variant.id for variant in report.variants if not variant.baseline)
    for wrong, named in (
        ({"over_fastest": (dataclasses.replace(report.over_fastest[0], fastest=point),)}, "is no baseline"),
        ({"together": (dataclasses.replace(report.together[0], variant="ghost"),)}, "'ghost' is not among"),
        ({"over_fastest": (dataclasses.replace(report.over_fastest[0], variant="ghost"),)}, "'ghost' is not among"),
        ({"skipped": (), "rows": (), "over_fastest": (), "together": ()}, "nothing skipped"),
    ):
        with pytest.raises(ArtifactError, match=named):
            from_json(to_json(dataclasses.replace(report, **wrong)))  # type: ignore[arg-type]


def test_a_tuned_point_that_the_int8_artifact_has_not_skips_its_group(
    workspace: Path, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    for artifact in with_int8(tmp_path, open_artifact(workspace / DENSE)):
        assert artifact.manifest.quantized_from is not None
    with_int8(tmp_path, tiny_adaptive)
    from tests.siblings import rewritten  # the int8 one loses a point

    quantised = open_artifact(tmp_path / f"{tiny_adaptive.path.name}-int8")
    fields = dataclasses.asdict(quantised.manifest)["pruning"]
    rewritten(quantised, pruning=fields | {"points": [p for p in fields["points"] if p["name"] != "fast"]})
    sweep = dataclasses.replace(QUICK.sweep, points=("fast",))
    report = bench(
        with_baseline([tmp_path / tiny_adaptive.path.name]),
        replace(QUICK, batches=(1,), precisions=(FP32, INT8), sweep=sweep),
    )
    assert [group.name for group in report.groups] == ["onnxruntime fp32"]
    assert [(skip.group, "has no point 'fast'" in skip.reason) for skip in report.skipped] == [
        ("onnxruntime int8", True)
    ]


def test_a_group_whose_dense_cannot_run_is_compared_by_its_first_point(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OnnxRuntimeRunner.__init__

    def refuse(self: OnnxRuntimeRunner, artifact: Artifact, options: RunOptions) -> None:
        if artifact.path.name == f"{DENSE}-int8":
            raise RuntimeUnavailable("it cannot be compiled", "see: sait-deploy doctor")
        opened(self, artifact, options)

    monkeypatch.setattr(OnnxRuntimeRunner, "__init__", refuse)
    report = bench(with_baseline([workspace / HALF]), replace(QUICK, batches=(1,), precisions=(FP32, INT8)))
    names = names_of(report.variants)
    together = [names[times.variant] for times in report.together]
    assert together == ["dense on onnxruntime fp32", "density 0.5 on onnxruntime int8"]
    assert {names[over.variant] for over in report.over_fastest} == set(names.values()) - {"dense on onnxruntime int8"}
    assert {names[over.fastest] for over in report.over_fastest} == {"dense on onnxruntime fp32"}
    assert from_json(to_json(report)).over_fastest == report.over_fastest
