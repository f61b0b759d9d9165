"""What a reader must know to read the figures, in words."""

from __future__ import annotations

from collections.abc import Sequence

from sait_deploy.artifacts.manifest import Manifest, WeightsSource
from sait_deploy.bench.doubts import row_notes
from sait_deploy.bench.results import AccuracyMeasure, BenchRow, Variant, names_of
from sait_deploy.bench.stats import break_even_batch
from sait_deploy.reports.table import Note, Severity
from sait_deploy.reports.wording import near_chance


def report_notes(dense: Manifest, variants: Sequence[Variant], rows: Sequence[BenchRow]) -> list[Note]:
    """Returns notes on the weights, then of each group on its rows, a dense that is missing, and break-even."""
    notes: list[Note] = []
    if dense.weights.source is WeightsSource.RANDOM:
        notes.append(Note("random weights: the answers mean nothing, only the speed does", Severity.WARNING))
    elif not dense.weights.trained_sparse and not all(variant.baseline for variant in variants):
        text = "these weights were never trained sparse: pruning costs them accuracy that training would save"
        notes.append(Note(text))
    notes[:0] = _hardly_right(dense, variants)
    names = names_of(variants)
    notes += row_notes((row, names[row.variant]) for row in rows)
    for group in dict.fromkeys(variant.group for variant in variants):
        together = [variant for variant in variants if variant.group == group]
        own = [row for row in rows if row.variant in {variant.id for variant in together}]
        notes += _missing_dense(group, together, own)
        for variant in together:
            if any(row.variant == variant.id and row.speedup is not None for row in own):
                notes.append(Note(f"break-even: {names[variant.id]} is {break_even_text(own, variant.id)}"))
    return notes


def _hardly_right(dense: Manifest, variants: Sequence[Variant]) -> list[Note]:
    """Says first where dense itself is near chance."""
    known = [one.accuracy for one in variants if one.baseline and one.accuracy is not None]
    labelled = [one for one in known if one.measure is AccuracyMeasure.TOP1]
    found = [near_chance(one.percent, one.images, dense.model.classes) for one in labelled]
    return [Note(text, Severity.WARNING) for text in dict.fromkeys(found) if text is not None]


def _missing_dense(group: str, variants: Sequence[Variant], rows: Sequence[BenchRow]) -> list[Note]:
    """Says where there is nothing to compare with."""
    baselines = {variant.id for variant in variants if variant.baseline}
    there = {row.batch for row in rows if row.variant in baselines}
    without = ", ".join(str(batch) for batch in sorted({row.batch for row in rows} - there))
    if not without:
        return []
    return [Note(f"no speed-up on {group} at batch {without}: dense cannot run there", Severity.WARNING)]


def break_even_text(rows: Sequence[BenchRow], variant: str) -> str:
    """Says from which batch size on a variant is faster than dense by its whole interval."""
    smallest = break_even_batch(rows, variant)
    if smallest is not None:
        return f"faster than dense from batch {smallest} on"
    faster = sorted(row.batch for row in rows if row.variant == variant and row.speedup and row.speedup.low > 1)
    if not faster:
        return "not surely faster than dense at any batch size measured"
    return f"surely faster than dense at batch {', '.join(map(str, faster))} only"
