"""The candidates of a benchmark at one batch size, and what accuracy each loses to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sait_deploy.bench.results import Accuracy, AccuracyMeasure, Pruning, Report, Variant, names_of
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.results import AGREEMENT, OFFERED, TOP1, Evaluation, EvaluationRow
from sait_deploy.evaluation.stats import difference_of_counts
from sait_deploy.recommending.results import Candidate, Drop
from sait_deploy.reports.table import Note
from sait_deploy.runtime.registry import TORCH
from sait_deploy.tokens import OperatingPoint

_MEASURES = {TOP1: AccuracyMeasure.TOP1, AGREEMENT: AccuracyMeasure.AGREEMENT}

_AGAIN = "evaluate the weights that were measured, with the same score and block"


def reference_of(variants: Sequence[Variant]) -> Variant | None:
    """Returns what drops are counted from: the first dense whose accuracy is known, or else the first one."""
    dense = [variant for variant in variants if variant.baseline]
    known = [variant for variant in dense if variant.accuracy is not None]
    return next(iter((*known, *dense)), None)


@dataclass(frozen=True, slots=True)
class Accuracies:
    """What is known of accuracies.

    Attributes:
        percent: variant id to the share of right answers.
        drops: variant id to the points lost to the reference.
        notes: where they are from.
    """

    percent: dict[str, float]
    drops: dict[str, Drop]
    notes: tuple[Note, ...] = ()


def accuracies_of(report: Report, evaluation: Evaluation | None) -> Accuracies:
    """Returns accuracies from a benchmark, and where an evaluation has them from that.

    Raises:
        InvalidArgument: the evaluation is of other weights, or of another score, block or runtime than the reference.
    """
    reference = reference_of(report.variants)
    if reference is None or reference.random_weights:
        return Accuracies({}, {})
    percent = {variant.id: variant.accuracy.percent for variant in report.variants if variant.accuracy is not None}
    found = {variant.id: _drop(variant, reference) for variant in report.variants}
    drops = {name: drop for name, drop in found.items() if drop is not None}
    if evaluation is None:
        return Accuracies(percent, drops)
    used = _evaluated(report.variants, reference, evaluation)
    names = ", ".join(names_of(report.variants)[name] for name in used)
    better = {name: _evaluation_drop(row, evaluation) for name, row in used.items()}
    measure = better[next(iter(better))].measure
    alike = {name: drop for name, drop in drops.items() if drop.measure is measure}
    shares = {name: _share(row) for name, row in used.items()}
    note = Note(f"accuracies of {names} are of the evaluation")
    return Accuracies({name: percent[name] for name in alike} | shares, alike | better, (note,))


def _drop(variant: Variant, reference: Variant) -> Drop | None:
    own, other = variant.accuracy, reference.accuracy
    if own is None or other is None or (own.measure, own.images) != (other.measure, other.images):
        return None
    if variant is reference:
        return Drop(own.measure, own.images, Estimate(0.0, 0.0, 0.0))
    return Drop(own.measure, own.images, difference_of_counts(*_discordant(own, other), own.images))


def _discordant(own: Accuracy, reference: Accuracy) -> tuple[int, int]:
    """Returns how many images the reference alone has right and how many this alone.

    Where the benchmark does not say it, as few as possible are taken to be right in both: that makes the interval as
    wide as it can be.
    """
    if own.lost is not None and own.gained is not None:
        return own.lost, own.gained
    right, wanted = (round(one.images * one.percent / 100) for one in (own, reference))
    both = max(0, right + wanted - own.images)
    return wanted - both, right - both


def _evaluated(variants: Sequence[Variant], reference: Variant, evaluation: Evaluation) -> dict[str, EvaluationRow]:
    """Returns variant id to the row of the evaluation that is of the same point."""
    if evaluation.weights_sha256 != reference.weights_sha256:
        raise InvalidArgument(
            f"the evaluation is of weights {evaluation.weights_sha256[:12]}… (SHA-256), the benchmark of "
            f"{reference.weights_sha256[:12]}…",
            _AGAIN,
        )
    here = (reference.runtime, reference.precision)
    if evaluation.runtime not in (reference.runtime, TORCH) or evaluation.precision not in (None, reference.precision):
        raise InvalidArgument(
            f"the evaluation is of {evaluation.answered_by}, and drops are counted from dense on {reference.group}",
            f"evaluate with --runtime {reference.runtime}, in the same precision",
        )
    rows = {row.point: row for row in evaluation.rows if row.kind in OFFERED}
    found: dict[str, EvaluationRow] = {}
    for variant in variants:
        if (variant.runtime, variant.precision) != here:
            continue
        point = _point(variant.pruning, evaluation)
        if variant.baseline or point is not None:
            row = rows.get(None if variant.baseline else point)
            found |= {} if row is None else {variant.id: row}
    if not any(row.point is not None for row in found.values()):
        raise InvalidArgument("the evaluation has none of the points that were measured", _AGAIN)
    return found


def _point(pruning: Pruning | None, evaluation: Evaluation) -> OperatingPoint | None:
    if pruning is None or (pruning.score.value, pruning.prune_at) != (evaluation.score, evaluation.prune_at):
        return None
    return pruning.point


def _evaluation_drop(row: EvaluationRow, evaluation: Evaluation) -> Drop:
    measure = _MEASURES.get(evaluation.measure, AccuracyMeasure.RETRIEVAL)
    if row.point is None:
        change = Estimate(0.0, 0.0, 0.0)
    elif row.top1_change is not None:
        change = row.top1_change
    elif measure is AccuracyMeasure.RETRIEVAL and row.retrieval is not None and row.retrieval.main.change is not None:
        change = row.retrieval.main.change
    else:
        lost = round(evaluation.images * (1 - _share(row) / 100))
        return Drop(measure, evaluation.images, difference_of_counts(lost, 0, evaluation.images))
    return Drop(measure, evaluation.images, Estimate(0.0 - change.high, 0.0 - change.value, 0.0 - change.low))


def _share(row: EvaluationRow) -> float:
    value = row.agreement_percent if row.top1_percent is None else row.top1_percent
    if value is None and row.retrieval is not None:
        return row.retrieval.main.percent
    if value is None:
        raise InvalidArgument(
            "the evaluation is of a headless model and measured no retrieval",
            "evaluate on three images or more, or leave it out",
        )
    return value


def candidates_of(report: Report, batch: int, accuracies: Accuracies) -> list[Candidate]:
    """Returns what was measured at a batch size, fastest first."""
    rows = {row.variant: row for row in report.rows if row.batch == batch}
    ratios = _ratios(report, batch)
    in_turns = rows.keys() <= ratios.keys()
    memory = _memory(report, batch)
    found = [
        Candidate(
            variant=variant.id,
            label=variant.label,
            runtime=variant.runtime,
            precision=variant.precision,
            baseline=variant.baseline,
            accuracy_percent=accuracies.percent.get(variant.id),
            drop=accuracies.drops.get(variant.id),
            latency_ms=rows[variant.id].p50_ms,
            p99_ms=rows[variant.id].p99_ms,
            images_per_second=rows[variant.id].images_per_second,
            speedup=ratios[variant.id] if in_turns else None,
            memory_bytes=memory.get(variant.id),
        )
        for variant in report.variants
        if variant.id in rows
    ]
    return sorted(found, key=lambda one: -one.speed)


def _ratios(report: Report, batch: int) -> dict[str, float]:
    """Returns variant id to how many times as fast as the fastest dense it is, of those measured in turns with it."""
    if len(report.groups) > 1:
        return {one.variant: one.speedup.median for one in report.over_fastest if one.batch == batch}
    found = {row.variant: row.speedup.median for row in report.rows if row.batch == batch and row.speedup is not None}
    return found | {variant.id: 1.0 for variant in report.variants if variant.baseline}


def _memory(report: Report, batch: int) -> dict[str, int]:
    """Returns variant id to its peak memory with requests of that size."""
    return {one.variant: one.own_bytes for one in report.memory or () if one.batch == batch}
