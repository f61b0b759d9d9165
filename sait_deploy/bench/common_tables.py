"""A benchmark's tables of all groups together: every point over the fastest dense, and what does not exist here."""

from __future__ import annotations

from typing import Final

from sait_deploy.bench.machine_tables import machine_tables
from sait_deploy.bench.results import Report, names_of
from sait_deploy.bench.tables import (
    ACCURACY_COLUMNS,
    BATCH,
    accuracy_text,
    group_tables,
    speedup_cell,
    unmeasured_table,
)
from sait_deploy.reports.table import Cell, Fold, Note, Row, Table, figures, words

ACROSS_NOTE: Final = Note(
    "Groups are measured one after the other. Each figure is the point's ratio to its own dense, which took turns with "
    "it, times that dense's ratio to the fastest, which took turns with it in a last pass. Where a group's dense "
    "cannot run, its first point stands in for it."
)


def report_tables(report: Report) -> list[Table]:
    """Returns what a terminal shows: the tables of each group, then those of all together."""
    return [*group_tables(report), *common_tables(report)]


def common_tables(report: Report) -> list[Table]:
    """Returns the tables of all groups together that have rows."""
    found = (across_table(report), *machine_tables(report), unmeasured_table(report), skipped_table(report))
    return [table for table in found if table.rows]


def across_table(report: Report) -> Table:
    """Returns every point over the fastest dense of all groups, at each batch size that dense first, then by speed."""
    variants, names = {variant.id: variant for variant in report.variants}, names_of(report.variants)
    measures = {variant.accuracy.measure for variant in report.variants if variant.accuracy is not None}
    rows = []
    for batch in sorted({over.batch for over in report.over_fastest}):
        own = [over for over in report.over_fastest if over.batch == batch]
        own.sort(key=lambda over: (over.variant != over.fastest, -over.speedup.median))
        for place, over in enumerate(own):
            variant, fastest = variants[over.variant], variants[over.fastest]
            is_fastest = variant is fastest
            speedup = Cell("the fastest dense") if is_fastest else speedup_cell(over.speedup)
            accuracy = [accuracy_text(variant, None if is_fastest else fastest)] if measures else []
            cells: list[str | Cell] = [str(batch), names[variant.id], speedup, *accuracy]
            rows.append(Row.of(cells, begins_group=place == 0, reference=is_fastest))
    columns = [
        BATCH,
        words("variant"),
        figures("over the fastest dense", "× [95 %]", fold=Fold.PHRASES),
        *(ACCURACY_COLUMNS[measure] for measure in measures),
    ]
    return Table.of("Over the fastest dense of all", columns, rows, [ACROSS_NOTE] if rows else ())


def skipped_table(report: Report) -> Table:
    """Returns what was asked for and does not exist here."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for skip in report.skipped:
        why = skip.reason + (f"; {skip.hint}" if skip.hint else "")
        reasons.setdefault((skip.artifact or "all", why), []).append(skip.group)
    rows = [(", ".join(groups), what, why) for (what, why), groups in reasons.items()]
    return Table.of("Skipped", [words("runtime and precision"), words("what"), words("why")], rows)
