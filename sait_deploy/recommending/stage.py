"""The recommending stage: a benchmark in, and an evaluation where there is one; which candidate to deploy out."""

from __future__ import annotations

from pathlib import Path

from sait_deploy.bench.results import Report
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.results import Evaluation
from sait_deploy.recommending.candidates import Accuracies, accuracies_of, candidates_of, reference_of
from sait_deploy.recommending.choice import Limits, choose, with_front
from sait_deploy.recommending.deployment import deploying_commands
from sait_deploy.recommending.messages import choice_message, doubts, limits_text
from sait_deploy.recommending.results import (
    DEFAULT_DROP,
    SCHEMA_VERSION,
    Candidate,
    Recommendation,
    RecommendOptions,
)
from sait_deploy.reports.table import Note, Severity
from sait_deploy.runtime.precision import RunPrecision


def recommend(
    report: Report,
    options: RecommendOptions = RecommendOptions(),
    workspace: Path = Path("artifacts"),
    evaluation: Evaluation | None = None,
) -> Recommendation:
    """Chooses what to deploy of what was measured.

    Example::

        measured = BenchOptions(runtimes=("onnxruntime", "openvino"), precisions=("fp32", "int8"))
        report = sait_deploy.benchmark("artifacts/sait_demo_digits-adaptive", measured)
        found = sait_deploy.recommend(report, RecommendOptions(max_drop=0.5))
        print(found.message)

    Args:
        report: of the benchmark.
        options: the limits.
        workspace: folder of the artifacts that were measured, for the command that uses the choice.
        evaluation: of the same weights; its accuracies take the place of the benchmark's.

    Raises:
        InvalidArgument: the batch size was not measured, a drop is limited where no accuracy is known, the evaluation
            is of something else, or the benchmark is too old to say how its variants prune.
    """
    if any(variant.pruning is None and not variant.baseline for variant in report.variants):
        raise InvalidArgument(
            "the benchmark is of an older version and does not say how its variants prune", "run: sait-deploy bench"
        )
    accuracies = accuracies_of(report, evaluation)
    batch, batch_notes = _batch(report, options)
    limits, limit_notes = _limits(report, options, accuracies)
    measured = candidates_of(report, batch, accuracies)
    left_out = [one for one in measured if accuracies.drops and one.drop is None]
    candidates = with_front([one for one in measured if one not in left_out], limits)
    choice = choose(candidates, limits)
    chosen = next((v for v in report.variants if choice.chosen is not None and v.id == choice.chosen.variant), None)
    commands = () if chosen is None else deploying_commands(chosen, workspace)
    notes = [*limit_notes, *batch_notes, *_reference_notes(report, accuracies), *doubts(choice, limits)]
    if left_out:
        notes.append(Note(f"left out, as their accuracy is unknown: {', '.join(one.name for one in left_out)}"))
    if chosen is not None and not commands:
        text = f"no artifact in {workspace} is the one chosen: name its folder with --workspace to see the command"
        notes.append(Note(text, Severity.WARNING))
    return Recommendation(
        schema_version=SCHEMA_VERSION,
        model=report.model,
        batch=batch,
        max_drop=limits.max_drop,
        max_latency_ms=limits.max_latency_ms,
        reference=_reference(report, accuracies),
        candidates=tuple(candidates),
        chosen=_variant(choice.chosen),
        shown=_variant(choice.shown),
        nearest=_variant(choice.nearest),
        message=choice_message(choice, limits, candidates, batch),
        commands=commands,
        notes=tuple(notes),
    )


def _variant(candidate: Candidate | None) -> str | None:
    return None if candidate is None else candidate.variant


def _reference(report: Report, accuracies: Accuracies) -> str | None:
    variant = reference_of(report.variants) if accuracies.drops else None
    if variant is None:
        return None
    return f"{variant.label} on {variant.runtime}" + (f" in {variant.precision}" if variant.precision else "")


def _reference_notes(report: Report, accuracies: Accuracies) -> list[Note]:
    """Says what drops are counted from, which is no float32 model where none was measured first."""
    reference, variant = _reference(report, accuracies), reference_of(report.variants)
    if reference is None or variant is None:
        return []
    exact = variant.precision in (None, RunPrecision.FP32)
    found = [] if exact else [Note(f"drops are counted from {reference}: measure fp32 first", Severity.WARNING)]
    return [*found, *accuracies.notes]


def _batch(report: Report, options: RecommendOptions) -> tuple[int, list[Note]]:
    sizes = sorted({row.batch for row in report.rows})
    if not sizes:
        skipped = "".join(f"; {skip.group}: {skip.reason}" for skip in report.skipped[:1])
        raise InvalidArgument(f"nothing ran in this benchmark{skipped}", "see its refusals: sait-deploy bench")
    if options.batch is not None:
        if options.batch not in sizes:
            known = ", ".join(map(str, sizes))
            raise InvalidArgument(f"batch {options.batch} was not measured", f"measured are {known}")
        return options.batch, []
    chosen, which = (sizes[0], "fewest") if options.max_latency_ms is not None else (sizes[-1], "most")
    if len(sizes) == 1:
        return chosen, []
    images = "one image" if chosen == 1 else f"{chosen} images"
    return chosen, [Note(f"assumed: requests of {images}, the {which} that were measured (--batch)")]


def _limits(report: Report, options: RecommendOptions, accuracies: Accuracies) -> tuple[Limits, list[Note]]:
    """Returns the limits to judge by, and what is assumed of them."""
    if accuracies.drops:
        if options.max_drop is None and options.max_latency_ms is None:
            assumed = Limits(DEFAULT_DROP, None)
            return assumed, [Note(f"assumed: {limits_text(assumed)} (--max-drop, --max-latency)")]
        return Limits(options.max_drop, options.max_latency_ms), []
    random = any(variant.random_weights for variant in report.variants)
    why = "the weights are random" if random else "the benchmark measured none"
    if options.max_drop is not None:
        raise InvalidArgument(
            f"a drop of at most {options.max_drop:g} points cannot be judged: no accuracy is known, as {why}",
            "limit the latency alone" if random else "bench without --no-accuracy, or give --evaluation FILE",
        )
    text = f"no accuracy is known, as {why}: this is by speed alone, among the points that were measured"
    return Limits(None, options.max_latency_ms), [Note(text, Severity.WARNING)]
