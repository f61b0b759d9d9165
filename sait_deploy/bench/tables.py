"""A benchmark's tables: of each group figures, where the time goes, and what could not run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

from sait_deploy.bench.results import AccuracyMeasure, BenchRow, Interval, Refusal, Report, Variant
from sait_deploy.reports.table import Cell, Column, Emphasis, Fold, Note, Row, Table, figures, words
from sait_deploy.reports.wording import NOTHING, digits, kept_tokens, signed

STAGES_NOTE: Final = Note(
    "Medians. Enqueue is the host's time to start the work, and passes while the device computes; the other three "
    "follow each other on the runner's own stream, by the device's clock."
)
BATCH: Final = Column("batch", once=True)
ACCURACY_COLUMNS: Final = {
    AccuracyMeasure.TOP1: figures("top-1", "% (Δ)", fold=Fold.PHRASES),
    AccuracyMeasure.AGREEMENT: figures("agrees", "%"),
}
ALL: Final = 100.0
_FINE: Final = 10_000
"""Images from which a hundredth of a point is worth showing."""


def by_group(report: Report) -> list[Report]:
    """Returns a report for each group with what was measured in it: its dense is compared with nowhere else."""
    parts = []
    for group in report.groups:
        own = {variant.id for variant in report.variants if variant.group == group.name}
        parts.append(
            dataclasses.replace(
                report,
                groups=(group,),
                variants=tuple(variant for variant in report.variants if variant.id in own),
                rows=tuple(row for row in report.rows if row.variant in own),
                refusals=tuple(refusal for refusal in report.refusals if refusal.variant in own),
            )
        )
    return parts


def measured_parts(report: Report) -> list[Report]:
    """Returns the reports of the groups that have figures; of all groups where none has."""
    parts = by_group(report)
    return [part for part in parts if part.rows] or parts


def groups_text(report: Report) -> str:
    """Names the groups: "onnxruntime, openvino bf16"."""
    return ", ".join(group.name for group in report.groups)


def ordered_variants(report: Report) -> tuple[Variant, ...]:
    """Returns the variants, the baseline first, the others in the report's order."""
    return tuple(sorted(report.variants, key=lambda variant: not variant.baseline))


def series_of(part: Report) -> dict[str, int]:
    """Returns variant id to its number in plots: what has the same place in each group has the same colour."""
    return {variant.id: number for number, variant in enumerate(ordered_variants(part))}


def by_batch(report: Report) -> Iterator[tuple[int, list[tuple[Variant, BenchRow]]]]:
    """Yields every batch size that has rows, ascending, with them in the order of ``ordered_variants``."""
    rows = {(row.batch, row.variant): row for row in report.rows}
    for batch in sorted({row.batch for row in report.rows}):
        found = [(v, rows[batch, v.id]) for v in ordered_variants(report) if (batch, v.id) in rows]
        yield batch, found


def group_tables(report: Report) -> list[Table]:
    """Returns the tables of each group, the first of each titled with what was measured."""
    made = []
    for part in measured_parts(report):
        title = f"{part.model} · {groups_text(part)} · {part.timing}"
        own = part_tables(part)
        made += [dataclasses.replace(own[0], title=title), *own[1:]] if own else []
    return made


def part_tables(part: Report) -> list[Table]:
    """Returns the tables of one group that have rows."""
    found = (figures_table(part), stages_table(part), refusals_table(part))
    return [table for table in found if table.rows]


def figures_table(part: Report) -> Table:
    """Returns the figures of one group: for each batch size a group, dense first."""
    measures = {variant.accuracy.measure for variant in part.variants if variant.accuracy is not None}
    columns = [
        BATCH,
        words("variant"),
        figures("kept mean / p95 / max", fold=Fold.PHRASES),
        figures("GMACs", "/ image"),
        figures("p50", "ms"),
        figures("p99", "ms"),
        figures("img/s"),
        figures("speed-up", "× [95 %]", fold=Fold.PHRASES),
        figures("MAC ratio", "×"),
        figures("share"),
        *(ACCURACY_COLUMNS[measure] for measure in measures),
    ]
    baseline, series = next((v for v in part.variants if v.baseline), None), series_of(part)
    rows = []
    for batch, found in by_batch(part):
        for place, (variant, row) in enumerate(found):
            cells = [str(batch), Cell(variant.label, series=series[variant.id]), *_figures(row)]
            accuracy = [accuracy_text(variant, baseline)] if measures else []
            rows.append(Row.of([*cells, *accuracy], begins_group=place == 0, reference=variant.baseline))
    return Table.of("All figures", columns, rows)


def _figures(row: BenchRow) -> list[str | Cell]:
    return [
        kept_tokens(row.kept_mean, row.kept_p95, row.kept_max),
        digits(row.macs / 1e9),
        digits(row.p50_ms),
        digits(row.p99_ms),
        digits(row.images_per_second),
        speedup_cell(row.speedup),
        NOTHING if row.speedup is None else f"{row.mac_ratio:.2f}",
        NOTHING if row.share is None else f"{100 * row.share:.0f} %",
    ]


def stages_table(part: Report) -> Table:
    """Returns where the time of each row goes, of rows that say so."""
    headings = ("enqueue", "host to device", "compute", "device to host")
    rows = []
    for batch, found in by_batch(part):
        for variant, row in found:
            if row.stages is not None:
                stages = row.stages
                times = (stages.enqueue_ms, stages.upload_ms, stages.compute_ms, stages.download_ms)
                rows.append(Row.of([str(batch), variant.label, *map(digits, times)]))
    columns = [figures("batch"), words("variant"), *(figures(heading, "ms") for heading in headings)]
    return Table.of("Where a request's time goes", columns, rows, [STAGES_NOTE])


def refusals_table(part: Report) -> Table:
    """Returns what could not run and why, a row for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for variant in ordered_variants(part):
        for refusal in (one for one in part.refusals if one.variant == variant.id):
            batches = ", ".join(map(str, refusal.batches))
            reasons.setdefault((batches, _refusal_text(refusal)), []).append(variant.label)
    rows = [(batches, ", ".join(labels), why) for (batches, why), labels in reasons.items()]
    return Table.of("Without figures", [figures("batch"), words("variant"), words("in place of figures")], rows)


def unmeasured_table(report: Report) -> Table:
    """Returns the groups without figures beside others that have some, a row for each reason."""
    reasons: dict[str, list[str]] = {}
    shown = {part.groups[0].name for part in measured_parts(report)}
    for part in by_group(report):
        name = part.groups[0].name
        for refusal in part.refusals if name not in shown else ():
            names = reasons.setdefault(_refusal_text(refusal), [])
            names += [name] * (name not in names)
    rows = [(", ".join(names), why) for why, names in reasons.items()]
    return Table.of("Runtimes without figures", [words("runtime"), words("in place of figures")], rows)


def interval_text(interval: Interval) -> str:
    """Writes a median with its interval: 1.47 [1.43, 1.52]."""
    return f"{interval.median:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def accuracy_text(variant: Variant, baseline: Variant | None) -> str:
    """Writes top-1 with its difference to the baseline in points, or agreement with dense, which dense has not."""
    own = variant.accuracy
    if own is None or (own.measure is AccuracyMeasure.AGREEMENT and variant.baseline and own.percent == ALL):
        return NOTHING
    decimals = 2 if own.images >= _FINE else 1
    text = f"{own.percent:.{decimals}f}"
    reference = None if baseline is None or variant.baseline else baseline.accuracy
    if own.measure is AccuracyMeasure.AGREEMENT or reference is None or reference.images != own.images:
        return text
    return f"{text} ({signed(own.percent - reference.percent, decimals)})"


def speedup_cell(speedup: Interval | None) -> Cell:
    """Returns a speed-up, which stands out only where the whole interval lies on one side of 1."""
    if speedup is None:
        return Cell(NOTHING)
    text = interval_text(speedup)
    if speedup.low <= 1 <= speedup.high:
        return Cell(text)
    return Cell(text, Emphasis.GOOD if speedup.low > 1 else Emphasis.BAD)


def _refusal_text(refusal: Refusal) -> str:
    return f"cannot run here: {refusal.reason}" + (f"; {refusal.hint}" if refusal.hint else "")
