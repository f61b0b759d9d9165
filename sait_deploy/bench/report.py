"""A benchmark report as a terminal table and as Markdown; its JSON form is read and written next door."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sait_deploy.bench.cells import (
    HEADINGS,
    REFUSAL_HEADINGS,
    STAGE_HEADINGS,
    STAGE_TEXT,
    STAGE_TITLE,
    TIMING_TEXT,
    Cells,
    RefusalCells,
    StageCells,
    baseline_of,
    by_batch,
    by_runtime,
    cells,
    ordered_variants,
    refusal_rows,
    runtimes_text,
    stage_rows,
)
from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.results import Interval, Report, names_of
from sait_deploy.reports.escape import escape_markdown, plain
from sait_deploy.reports.markdown import note_lines

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["from_json", "tables", "to_json", "to_markdown"]

AnyCells = Cells | StageCells | RefusalCells

_LEFT = ("variant", "accuracy", "why")
_BREAKS = re.compile(r" / | (?=[\[(])|(?<=agrees) ")
_HEADINGS = Cells(
    batch="batch",
    variant="variant",
    kept="kept mean\n/ p95 / max",
    gmacs="GMACs\n/ image",
    p50="p50\nms",
    p99="p99\nms",
    images="img/s",
    speedup="speed-up\n× [95 %]",
    mac_ratio="MAC\nratio ×",
    share="share",
    accuracy="top-1\n% (Δ)",
)


def tables(report: Report, *, columns: int = 80) -> list[Table]:
    """Returns what the terminal shows of each runtime: its figures, where their time goes, and what could not run.

    Args:
        report: what to show.
        columns: width of the terminal; where a row does not fit in one line, its phrases are broken before brackets.
    """
    made = []
    for part in by_runtime(report):
        own = [_figures(part, columns)] if part.rows else []
        if stages := stage_rows(part):
            own.append(_plain_table(STAGE_HEADINGS, stages))
            own[-1].title = f"{STAGE_TITLE}: medians"
        if refusals := refusal_rows(part):
            own.append(_plain_table(REFUSAL_HEADINGS, refusals))
        if own and not own[0].title:
            own[0].title = _title(part)
        made += own
    return made


def _title(part: Report) -> str:
    return plain(f"{part.model} · {runtimes_text(part)} · {part.timing}")


def _figures(report: Report, columns: int) -> Table:
    """Returns the figures of one runtime: dense first for each batch size, a line between batch sizes."""
    from rich.text import Text

    baseline = baseline_of(report)
    sections = [[(row, cells(row, variant, baseline)) for variant, row in rows] for _, rows in by_batch(report)]
    headings, lines = _HEADINGS, [Cells(*map(plain, line)) for section in sections for _, line in section]
    if _width([headings, *lines]) > columns:
        headings = headings._replace(kept="kept\nmean\np95\nmax")
        lines = [Cells(line.batch, line.variant, *(_BREAKS.sub("\n", text) for text in line[2:])) for line in lines]
    made = _empty_table(dict(zip(Cells._fields, headings, strict=True)))
    following = iter(lines)
    for section in sections:
        made.add_section()
        for position, (row, _) in enumerate(section):
            shown = {name: Text(text) for name, text in next(following)._asdict().items()}
            if position:
                shown["batch"] = Text()
            shown["speedup"].stylize(_verdict(row.speedup))
            made.add_row(*shown.values())
    return made


def _empty_table(headings: Mapping[str, str]) -> Table:
    from rich import box
    from rich.table import Table

    made = Table(box=box.HORIZONTALS, padding=0, pad_edge=False, show_edge=False)
    for name, heading in headings.items():
        made.add_column(heading, justify="left" if name in _LEFT else "right", vertical="top", overflow="fold")
    return made


def _plain_table(headings: AnyCells, lines: Iterable[AnyCells]) -> Table:
    from rich.text import Text

    made = _empty_table(headings._asdict())
    for line in lines:
        made.add_row(*(Text(plain(text)) for text in line))
    return made


def _width(lines: Sequence[Cells]) -> int:
    """Returns how many columns the cells need, with one between them."""
    widths = [max(len(part) for text in column for part in text.split("\n")) for column in zip(*lines, strict=True)]
    return sum(widths) + len(widths) - 1


def _verdict(speedup: Interval | None) -> str:
    """Returns the style of a speed-up: coloured only where the whole interval lies on one side of 1."""
    if speedup is None or speedup.low <= 1 <= speedup.high:
        return ""
    return "green" if speedup.low > 1 else "red"


def to_markdown(report: Report) -> str:
    """Returns the tables as GitHub Markdown, with notes, environment, options and artifacts below them."""
    lines = [
        f"## {escape_markdown(report.model)} on {escape_markdown(runtimes_text(report))}",
        "",
        f"Times are {report.timing}: {TIMING_TEXT[report.timing]}. Measured {escape_markdown(report.created)}.",
    ]
    for part in by_runtime(report):
        if len(report.runtimes) > 1:
            lines += ["", f"### {escape_markdown(runtimes_text(part))}"]
        baseline = baseline_of(part)
        lines += _markdown_table(
            HEADINGS, (cells(row, own, baseline) for _, rows in by_batch(part) for own, row in rows)
        )
        if stages := stage_rows(part):
            lines += ["", f"{STAGE_TITLE}. {STAGE_TEXT}", *_markdown_table(STAGE_HEADINGS, stages)]
        lines += _markdown_table(REFUSAL_HEADINGS, refusal_rows(part))
    if report.notes:
        lines += ["", "### Notes", ""]
        lines += note_lines(report.notes)
    lines += _listing("Environment", report.environment)
    for info in report.runtimes:
        lines += _listing(f"Runtime {info.name}", info.environment)
    lines += _listing("Options", report.options)
    lines += ["", "### Artifacts", ""]
    names = names_of(report.variants)
    for variant in (variant for part in by_runtime(report) for variant in ordered_variants(part)):
        weights = "random weights, " if variant.random_weights else ""
        lines.append(
            f"- {escape_markdown(names[variant.id])} ({escape_markdown(variant.id)}): "
            f"{weights}SHA-256 {escape_markdown(variant.model_sha256)}"
        )
    return "\n".join(lines) + "\n"


def _markdown_table(headings: AnyCells, rows: Iterable[AnyCells]) -> list[str]:
    """Returns a table with an empty line before it, or nothing where it has no rows."""
    lines = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    if not lines:
        return []
    head = "| " + " | ".join(map(escape_markdown, headings)) + " |"
    rule = "| " + " | ".join("---" if name in _LEFT else "---:" for name in headings._fields) + " |"
    return ["", head, rule, *lines]


def _listing(heading: str, values: Mapping[str, str]) -> list[str]:
    if not values:
        return []
    lines = [f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in values.items()]
    return ["", f"### {escape_markdown(heading)}", "", *lines]
