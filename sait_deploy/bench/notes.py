"""What a reader must know besides the figures, in words."""

from __future__ import annotations

from collections.abc import Sequence

from sait_deploy.artifacts.manifest import Manifest, WeightsSource
from sait_deploy.bench.results import Row, Variant, names_of
from sait_deploy.bench.stats import WARNING, break_even_batch, row_notes


def report_notes(dense: Manifest, variants: Sequence[Variant], rows: Sequence[Row]) -> list[str]:
    """Returns notes on the weights, then of each runtime on its rows, a dense that is missing, and break-even."""
    notes = []
    if dense.weights.source is WeightsSource.RANDOM:
        notes.append(f"{WARNING}random weights: the answers mean nothing, only the speed does")
    elif not dense.weights.trained_sparse and not all(variant.baseline for variant in variants):
        notes.append("these weights were never trained sparse: pruning costs them accuracy that training would save")
    names = names_of(variants)
    for runtime in dict.fromkeys(variant.runtime for variant in variants):
        together = [variant for variant in variants if variant.runtime == runtime]
        own = [row for row in rows if row.variant in {variant.id for variant in together}]
        for row in own:
            notes += row_notes(row, names[row.variant])
        notes += _missing_dense(runtime, together, own)
        for variant in together:
            if any(row.variant == variant.id and row.speedup is not None for row in own):
                notes.append(f"break-even: {names[variant.id]} is {break_even_text(own, variant.id)}")
    return notes


def _missing_dense(runtime: str, variants: Sequence[Variant], rows: Sequence[Row]) -> list[str]:
    """Says where there is nothing to compare with."""
    baselines = {variant.id for variant in variants if variant.baseline}
    there = {row.batch for row in rows if row.variant in baselines}
    without = ", ".join(str(batch) for batch in sorted({row.batch for row in rows} - there))
    return [f"{WARNING}no speed-up on {runtime} at batch {without}: dense cannot run there"] if without else []


def break_even_text(rows: Sequence[Row], variant: str) -> str:
    """Says from which batch size on a variant is faster than dense by its whole interval."""
    smallest = break_even_batch(rows, variant)
    if smallest is not None:
        return f"faster than dense from batch {smallest} on"
    faster = sorted(row.batch for row in rows if row.variant == variant and row.speedup and row.speedup.low > 1)
    if not faster:
        return "not surely faster than dense at any batch size measured"
    return f"surely faster than dense at batch {', '.join(map(str, faster))} only"
