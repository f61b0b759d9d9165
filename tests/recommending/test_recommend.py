"""The recommendation from a benchmark's report: limits given and assumed, accuracies, doubts, the command."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sait_deploy.bench.machine_results import PeakMemory
from sait_deploy.bench.results import Accuracy, AccuracyMeasure, Pruning, Report
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.results import Evaluation, Kind, Recall, Retrieval
from sait_deploy.evaluation.stats import difference_of_counts
from sait_deploy.recommending.report import candidates_table, front_plot, to_html, to_markdown
from sait_deploy.recommending.results import DEFAULT_DROP, Recommendation, RecommendOptions, to_json
from sait_deploy.recommending.stage import recommend
from sait_deploy.reports.table import Severity
from sait_deploy.tokens import OperatingPoint, Score
from tests.bench.sample import BATCHES, RUNTIME, TOP1, make_report
from tests.evaluation.sample import make_dense, make_evaluation, make_row

NOWHERE = Path("nowhere")


def with_accuracies(**found: Accuracy | None) -> Report:
    """The sample's report with these accuracies."""
    report = make_report()
    variants = tuple(dataclasses.replace(v, accuracy=found[v.id.replace(".", "_")]) for v in report.variants)
    return dataclasses.replace(report, variants=variants)


def paired(lost: int, gained: int, images: int = 5000, right: int = 4000) -> Accuracy:
    return Accuracy(TOP1, images, 100 * (right - lost + gained) / images, lost, gained)


REPORT = with_accuracies(dense=paired(0, 0), d0_6=paired(30, 20), d0_5=paired(100, 20))
"""Density 0.6 loses 0.2 points, 0.5 loses 1.6."""


def asked(report: Report = REPORT, **limits: float | int | None) -> Recommendation:
    return recommend(report, RecommendOptions(**limits), NOWHERE)  # type: ignore[arg-type]  # limits are mixed


def notes(found: Recommendation, severity: Severity | None = None) -> str:
    return "\n".join(note.text for note in found.notes if severity in (None, note.severity))


def test_the_fastest_within_the_drop_is_chosen_from_requests_of_the_most_images() -> None:
    found = asked(max_drop=0.5)
    assert (found.batch, found.chosen, found.shown, found.nearest) == (32, "d0.6", "d0.6", None)
    assert found.reference == f"dense on {RUNTIME} in fp32"
    assert [one.variant for one in found.candidates] == ["d0.5", "d0.6", "dense"]
    assert found.candidate("d0.6").drop is not None
    assert found.candidate("d0.6").drop.points == difference_of_counts(30, 20, 5000)  # type: ignore[union-attr]
    assert "assumed: requests of 32 images" in notes(found)
    assert found.message.startswith(f"deploy density 0.6 on {RUNTIME} in fp32: the fastest with a drop of at most 0.5")
    assert "as fast as the fastest dense" in found.message


def test_a_drop_that_the_images_cannot_show_is_not_sold_as_kept() -> None:
    found = asked(max_drop=0.3)
    assert (found.chosen, found.shown) == ("d0.6", "dense")
    warning = notes(found, Severity.WARNING)
    assert f"5,000 images cannot show that density 0.6 on {RUNTIME} in fp32 loses at most 0.3 points" in warning
    assert f"the fastest that is shown to is dense on {RUNTIME} in fp32" in warning


def test_without_limits_a_drop_is_assumed_and_said() -> None:
    found = asked()
    assert (found.max_drop, found.max_latency_ms, found.chosen) == (DEFAULT_DROP, None, "d0.6")
    assert f"assumed: a drop of at most {DEFAULT_DROP:g} points" in notes(found)


def test_a_latency_is_that_of_the_fewest_images_unless_others_are_named() -> None:
    assert (asked(max_latency_ms=30.0).batch, asked(max_latency_ms=30.0).chosen) == (1, "d0.5")
    assert (asked(max_latency_ms=35.0).chosen, asked(max_latency_ms=35.0, max_drop=0.1).chosen) == ("d0.6", None)
    assert asked(max_latency_ms=210.0, batch=8).chosen == "d0.6"


def test_where_nothing_keeps_to_the_limits_the_nearest_is_named() -> None:
    found = asked(max_latency_ms=30.0, max_drop=0.5)
    assert (found.chosen, found.nearest, found.commands) == (None, "d0.6", ())
    assert found.message.startswith(
        "nothing that was measured at batch 1 keeps to a drop of at most 0.5 points and at most 30 ms a request; the "
        f"nearest is density 0.6 on {RUNTIME} in fp32"
    )


def test_a_report_that_does_not_pair_answers_has_the_widest_intervals() -> None:
    unpaired = asked(make_report(), max_drop=1.0)
    drop = unpaired.candidate("d0.6").drop
    assert drop is not None
    assert drop.points.value == pytest.approx(0.4)
    assert drop.points.high - drop.points.low > 2 * 1.4
    assert unpaired.shown == "dense"


def test_random_weights_are_judged_by_speed_alone() -> None:
    variants = tuple(dataclasses.replace(v, random_weights=True, accuracy=None) for v in REPORT.variants)
    report = dataclasses.replace(REPORT, variants=variants)
    found = asked(report)
    assert (found.chosen, found.max_drop, found.reference) == ("d0.5", None, None)
    assert "the weights are random: this is by speed alone" in notes(found, Severity.WARNING)
    with pytest.raises(InvalidArgument, match=r"a drop of at most 0\.5 points cannot be judged.*random"):
        asked(report, max_drop=0.5)


def test_what_has_no_accuracy_is_left_out_and_named() -> None:
    found = asked(with_accuracies(dense=paired(0, 0), d0_6=paired(5, 5), d0_5=None))
    assert [one.variant for one in found.candidates] == ["d0.6", "dense"]
    assert "left out, as their accuracy is unknown: density 0.5" in notes(found)


def test_a_report_without_accuracies_cannot_judge_a_drop() -> None:
    report = with_accuracies(dense=None, d0_6=None, d0_5=None)
    with pytest.raises(InvalidArgument, match="the benchmark measured none"):
        asked(report, max_drop=1.0)
    assert asked(report).chosen == "d0.5"


def test_a_batch_that_was_not_measured_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="batch 4 was not measured"):
        asked(batch=4)


def test_a_reference_that_is_no_float_model_is_said() -> None:
    variants = tuple(dataclasses.replace(v, precision="int8") for v in REPORT.variants)
    found = asked(dataclasses.replace(REPORT, variants=variants))
    assert "measure fp32 first" in notes(found, Severity.WARNING)


def evaluated(**changes: object) -> Evaluation:
    """An evaluation of dense and density 0.6 as the report has them: 0.6 loses 0.6 points there."""
    row = dataclasses.replace(make_row("density0.6", Kind.DENSITY, 118, -0.6), point=OperatingPoint(1.0, 118, 118))
    whole = dataclasses.replace(make_evaluation(), prune_at=3, runtime=RUNTIME, rows=(make_dense(), row))
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]  # fields are mixed


def of_two_points() -> Report:
    """The report with a point of its own for density 0.5, which the evaluation does not have."""
    pruning = Pruning("0.5", OperatingPoint(1.0, 98, 98), None, Score.MEAN, 3)
    variants = tuple(dataclasses.replace(v, pruning=pruning) if v.id == "d0.5" else v for v in REPORT.variants)
    return dataclasses.replace(REPORT, variants=variants)


@pytest.mark.parametrize("runtime", [RUNTIME, "torch"])
def test_an_evaluation_takes_the_place_of_the_accuracies_it_has(runtime: str) -> None:
    found = recommend(of_two_points(), RecommendOptions(max_drop=0.5), NOWHERE, evaluated(runtime=runtime))
    drop, other = found.candidate("d0.6").drop, found.candidate("d0.5").drop
    assert drop is not None and other is not None
    assert (drop.images, drop.points.value) == (2000, pytest.approx(0.6))
    assert drop.points.low < 0.6 < drop.points.high
    assert other.images == 5000
    assert found.chosen == "dense"
    assert "accuracies of density 0.6, dense are of the evaluation" in notes(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_sha256": "cd" * 32}, "is of weights cdcdcdcdcdcd"),
        ({"runtime": "openvino"}, "is of openvino, and drops are counted from dense on"),
        ({"precision": "bf16"}, "is of .* bf16, and drops are counted from dense on"),
        ({"prune_at": 2}, "none of the points that were measured"),
        ({"score": "cls"}, "none of the points that were measured"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        recommend(of_two_points(), RecommendOptions(), NOWHERE, evaluated(**changes))


def test_without_labels_the_evaluation_says_how_often_answers_agree() -> None:
    rows = tuple(dataclasses.replace(row, top1_percent=None, top1_change=None) for row in evaluated().rows)
    found = recommend(of_two_points(), RecommendOptions(), NOWHERE, evaluated(labelled=False, rows=rows))
    drop = found.candidate("d0.6").drop
    assert drop is not None
    assert drop.measure is AccuracyMeasure.AGREEMENT
    assert drop.points == difference_of_counts(22, 0, 2000)
    assert "left out, as their accuracy is unknown: density 0.5" in notes(found), "it is top-1 that is known of it"


def test_of_embeddings_the_evaluation_says_how_right_retrieval_is() -> None:
    def retrieval(percent: float, change: Estimate | None) -> Retrieval:
        return Retrieval((Recall(1, percent, change),), (), None)

    dense, half = evaluated().rows
    bare = {"top1_percent": None, "top1_change": None, "agreement_percent": None}
    found = [retrieval(100.0, None), retrieval(96.0, Estimate(-5.0, -4.0, -3.0))]
    rows = tuple(
        dataclasses.replace(row, retrieval=own, **bare)  # type: ignore[arg-type]  # fields are mixed
        for row, own in zip((dense, half), found, strict=True)
    )
    unmeasured = tuple(dataclasses.replace(variant, accuracy=None) for variant in of_two_points().variants)
    report = dataclasses.replace(of_two_points(), variants=unmeasured)
    recommended = recommend(report, RecommendOptions(max_drop=4.5), NOWHERE, evaluated(labelled=False, rows=rows))
    candidate = recommended.candidate("d0.6")
    assert candidate.drop is not None and candidate.accuracy_percent == 96.0
    assert candidate.drop.measure is AccuracyMeasure.RETRIEVAL
    assert candidate.drop.points == Estimate(3.0, 4.0, 5.0)
    assert "points of retrieval" in recommended.message
    few = tuple(dataclasses.replace(row, retrieval=None) for row in rows)
    with pytest.raises(InvalidArgument, match="measured no retrieval"):
        recommend(report, RecommendOptions(), NOWHERE, evaluated(labelled=False, rows=few))


def test_an_old_report_is_refused() -> None:
    variants = tuple(dataclasses.replace(v, pruning=None) for v in REPORT.variants)
    with pytest.raises(InvalidArgument, match="older version"):
        asked(dataclasses.replace(REPORT, variants=variants))


@pytest.mark.parametrize("wrong", [{"max_drop": -1.0}, {"max_drop": 101.0}, {"max_latency_ms": 0.0}, {"batch": 0}])
def test_limits_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        RecommendOptions(**wrong)  # type: ignore[arg-type]  # one of them at a time


def test_memory_is_of_the_same_requests() -> None:
    memory = [PeakMemory(v.id, batch, 100, 100 + batch * len(v.id)) for v in REPORT.variants for batch in BATCHES]
    found = asked(dataclasses.replace(REPORT, memory=tuple(memory)), batch=8)
    assert {one.variant: one.memory_bytes for one in found.candidates} == {"d0.5": 32, "d0.6": 32, "dense": 40}


def test_it_is_written_in_every_format() -> None:
    found = asked(max_drop=0.5)
    table = candidates_table(found)
    assert [row.cells[0].text for row in table.rows] == ["density 0.5", "density 0.6", "dense"]
    assert [row.cells[-1].text for row in table.rows] == ["yes", "chosen", "yes"]
    assert '"chosen": "d0.6"' in to_json(found)
    assert "density 0.6" in to_markdown(found)
    for drawn in (to_html(found), front_plot(found)):
        assert "Pareto front" in drawn
        assert "chosen: density 0.6" in drawn
    unjudged = asked(with_accuracies(dense=None, d0_6=None, d0_5=None))
    assert "<svg" not in to_html(unjudged)
    with pytest.raises(InvalidArgument, match="no accuracy is known"):
        front_plot(unjudged)
