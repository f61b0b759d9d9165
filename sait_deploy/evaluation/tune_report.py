"""What tuning found, in tables and in sentences, with what to do next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

from sait_deploy.artifacts.manifest import Manifest, WeightsSource
from sait_deploy.artifacts.tuned_points import Measure
from sait_deploy.evaluation.tune_limits import RECALLS, Limit, Verdict
from sait_deploy.evaluation.tune_results import Outcome, TuneOptions, TuneResult
from sait_deploy.evaluation.tune_splits import SplitOptions
from sait_deploy.evaluation.tune_trials import Trial
from sait_deploy.reports.table import Table, figures, words
from sait_deploy.reports.wording import near_chance

_LITTLE: Final = 1.05
"""A MAC ratio below this may not be worth the packed form."""

_LOST: Final = {
    Measure.DROP: "points lost",
    Measure.DISAGREEMENT: "% answered otherwise",
    Measure.COSINE: "% off (1 - cosine)",
    **{measure: f"points of {measure} lost" for measure in RECALLS.values()},
}
"""Headings of what a candidate lost."""

_LOSSES: Final = {
    Measure.DROP: ("points", "lost"),
    Measure.DISAGREEMENT: ("%", "answered otherwise than by dense"),
    Measure.COSINE: ("%", "off dense's features (1 - cosine)"),
    **{measure: ("points", f"of {measure} lost") for measure in RECALLS.values()},
}


def tables(result: TuneResult) -> list[Table]:
    """Returns the candidates tried, and the one checked on other images."""
    found = [_table(f"tried on {result.calibration.source}", result.trials, result.limit.measure)]
    if result.checked is not None:
        found.append(_table(f"checked on {result.check.source}", (result.checked,), result.limit.measure))
    return found if result.trials else []


def _table(title: str, trials: Sequence[Trial], measure: Measure) -> Table:
    kept = figures("kept, mean"), figures("p95"), figures("most")
    bounds = figures(_LOST[measure]), figures("at most"), words()
    several = len({trial.name for trial in trials}) > 1
    return Table.of(
        title, [words("point"), *kept, figures("MAC ratio", "×"), *bounds], [_cells(trial, several) for trial in trials]
    )


def _cells(trial: Trial, named: bool) -> tuple[str, ...]:
    kept, found = trial.kept, trial.judgement
    return (
        f"{trial.name}, {trial.candidate.label}" if named else trial.candidate.label,
        f"{kept.mean:.1f}",
        f"{kept.p95:.0f}",
        str(kept.most),
        f"{trial.macs.ratio:.2f}",
        f"{found.value_percent:.2f}",
        f"{found.bound_percent:.2f}",
        found.verdict.value,
    )


def limit_words(limit: Limit) -> str:
    """Returns a limit in words: "0.5 points lost at 95 % confidence"."""
    unit, lost = _LOSSES[limit.measure]
    return f"{limit.percent:g} {unit} {lost} at {100 * limit.confidence:g} % confidence"


def loss_words(trial: Trial, measure: Measure) -> str:
    """Returns what a candidate lost, in words: "0.30 points lost, at most 0.62"."""
    (unit, lost), found = _LOSSES[measure], trial.judgement
    return f"{found.value_percent:.2f} {unit} {lost}, at most {found.bound_percent:.2f}"


def trial_line(trial: Trial, measure: Measure) -> str:
    """Returns what a candidate kept and lost and how that was judged, in a line."""
    kept, lost = f"{trial.kept.mean:.1f} patch tokens kept", loss_words(trial, measure)
    return f"{trial.name}, {trial.candidate.label}: {kept}, {lost}: {trial.judgement.verdict}"


def limit_line(result: TuneResult) -> str:
    """Returns the limit, and how many images it takes and there are, in a line."""
    beside = "" if result.sequences == 1 else f", shared by {result.sequences} sequences"
    return (
        f"limit: {limit_words(result.limit)}{beside}; it takes {result.images_needed} images at least, "
        f"there are {result.calibration.images} to choose on and {result.check.images} to check on"
    )


def too_few(result: TuneResult, splits: SplitOptions) -> TuneResult:
    """Returns the result of a limit that the images cannot decide, whatever is found."""
    needed, own = result.images_needed, splits.check_images is not None
    whole = needed if own else math.ceil(needed / splits.calibration_share)
    share = "" if own else f" ({100 * splits.calibration_share:g} % of them to choose on, the rest to check on)"
    return dataclasses.replace(
        result,
        outcome=Outcome.TOO_FEW_IMAGES,
        message=f"{result.calibration.images} images to choose on cannot decide {limit_words(result.limit)}: "
        f"even a point that changes no answer needs {needed}",
        hint=f"give at least {whole} with --images{share}, or allow more; until then run dense",
    )


def nothing_passes(result: TuneResult, options: TuneOptions) -> TuneResult:
    """Returns the result where no candidate that prunes anything passes."""
    failed = [trial for trial in result.trials if not trial.passes]
    message = f"no point keeps to {limit_words(result.limit)}: dense is recommended"
    hint = "run dense"
    if failed:
        nearest = min(failed, key=lambda trial: trial.judgement.bound_percent)
        message += f" ({nearest.candidate.label}: {loss_words(nearest, result.limit.measure)})"
        hint = _way_out(nearest, options)
    elif result.trials:
        message += f" ({result.trials[-1].candidate.label} passes, and keeps every token)"
        hint = "give a --grid that goes further down"
    return dataclasses.replace(result, outcome=Outcome.NOTHING_PASSES, message=message, hint=hint)


def _way_out(nearest: Trial, options: TuneOptions) -> str:
    if nearest.judgement.verdict is Verdict.UNDECIDED:
        return f"{_to_decide(nearest)} to choose on; until then run dense"
    if not options.search:
        return "run dense, look for a later block with --search prune-at,score, or train dense and sparse"
    return "run dense, allow more, or train dense and sparse"


def _to_decide(trial: Trial) -> str:
    if trial.images_to_decide is None:
        return f"{trial.candidate.label} is too near the limit: it would take more images than can be said"
    return f"were they like these, about {trial.images_to_decide} images would decide on {trial.candidate.label}"


def check_failed(result: TuneResult) -> TuneResult:
    """Returns the result of a choice that does not hold on the check images."""
    assert result.chosen is not None and result.checked is not None
    again = loss_words(result.checked, result.limit.measure)
    return dataclasses.replace(
        result,
        outcome=Outcome.CHECK_FAILED,
        message=f"{result.chosen.candidate.label} passed on the images it was chosen on, and is beyond "
        f"{limit_words(result.limit)} on the others ({again}): dense is recommended",
        hint="run dense; or choose on more images, and on such as will be met",
    )


def tuned(result: TuneResult, manifest: Manifest) -> TuneResult:
    """Returns the result of a point that was written."""
    assert result.chosen is not None and result.file is not None
    chosen = result.chosen
    return dataclasses.replace(
        result,
        outcome=Outcome.TUNED,
        message=f"{chosen.candidate.label} of {chosen.name} keeps to {limit_words(result.limit)}, "
        f"at {chosen.macs.ratio:.2f} times fewer MACs than dense",
        hint=f"it is the point {result.file.stem}",
        notes=_notes(result, manifest),
    )


def with_dense(result: TuneResult, manifest: Manifest) -> TuneResult:
    """Returns the result with how right dense is in its message, and first of its notes that it is near chance."""
    percent = result.trials[0].dense_percent if result.trials else None
    if percent is None:
        return result
    images = result.calibration.images
    text = None
    if manifest.weights.source is not WeightsSource.RANDOM:
        text = near_chance(percent, images, manifest.model.classes)
    return dataclasses.replace(
        result,
        message=f"{result.message}; dense is {percent:.1f} % right on the {images} images to choose on",
        notes=result.notes if text is None else (text, *result.notes),
    )


def _notes(result: TuneResult, manifest: Manifest) -> tuple[str, ...]:
    chosen, checked, notes = result.chosen, result.checked, []
    assert chosen is not None and checked is not None
    own = [t for t in result.trials if (t.artifact, t.candidate.family) == (chosen.artifact, chosen.candidate.family)]
    if own[-1].passes:
        notes.append(f"{chosen.candidate.label} is the last that was to be tried: give a --grid that goes further down")
    elif own[-1].judgement.verdict is Verdict.UNDECIDED:
        notes.append(f"{own[-1].candidate.label} was left undecided: {_to_decide(own[-1])}")
    if checked.judgement.verdict is Verdict.UNDECIDED:
        notes.append(
            "on the check images alone the loss is within the limit, not its bound: they bear the choice out, and the "
            "confidence is that of the choice"
        )
    if chosen.macs.ratio < _LITTLE:
        notes.append(f"a MAC ratio of {chosen.macs.ratio:.2f} may save no time: measure it with sait-deploy bench")
    if result.limit.measure in RECALLS.values():
        notes.append(
            f"recall is among the {result.calibration.images} images to choose on: among more images more are nearly "
            "as near, and recall is lower"
        )
    if manifest.weights.source is WeightsSource.RANDOM:
        notes.append("random weights: what they lose means nothing")
    return tuple(notes)
