"""A benchmark report as a terminal table and as Markdown; its JSON form is read and written next door."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sait_deploy.bench.cells import (
    HEADINGS,
    TIMING_TEXT,
    Cells,
    baseline_of,
    by_batch,
    cells,
    ordered_notes,
    ordered_variants,
)
from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.markup import escape_markdown, plain
from sait_deploy.bench.results import Interval, Report

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["from_json", "table", "to_json", "to_markdown"]

_LEFT = ("variant", "accuracy")
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


def table(report: Report, *, columns: int = 80) -> Table:
    """Returns the terminal table: dense first for each batch size, a line between batch sizes.

    Args:
        report: what to show.
        columns: width of the terminal; where a row does not fit in one line, its phrases are broken before brackets.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    baseline = baseline_of(report)
    sections = [[(row, cells(row, variant, baseline)) for variant, row in rows] for _, rows in by_batch(report)]
    headings, lines = _HEADINGS, [Cells(*map(plain, line)) for section in sections for _, line in section]
    if _width([headings, *lines]) > columns:
        headings = headings._replace(kept="kept\nmean\np95\nmax")
        lines = [Cells(line.batch, line.variant, *(_BREAKS.sub("\n", text) for text in line[2:])) for line in lines]
    title = Text(plain(f"{report.model} · {report.runtime} · {report.timing}"))
    made = Table(title=title, box=box.HORIZONTALS, padding=0, pad_edge=False, show_edge=False)
    for name, heading in zip(Cells._fields, headings, strict=True):
        made.add_column(heading, justify="left" if name in _LEFT else "right", vertical="top", overflow="fold")
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
    """Returns the table as GitHub Markdown, with notes, environment, options and artifacts below it."""
    baseline = baseline_of(report)
    lines = [
        f"## {escape_markdown(report.model)} on {escape_markdown(report.runtime)}",
        "",
        f"Times are {report.timing}: {TIMING_TEXT[report.timing]}. Measured {escape_markdown(report.created)}.",
        "",
        "| " + " | ".join(escape_markdown(heading) for heading in HEADINGS) + " |",
        "| " + " | ".join("---" if name in _LEFT else "---:" for name in Cells._fields) + " |",
    ]
    for _, rows in by_batch(report):
        for variant, row in rows:
            texts = (escape_markdown(text) for text in cells(row, variant, baseline))
            lines.append("| " + " | ".join(texts) + " |")
    if report.notes:
        lines += ["", "### Notes", ""]
        for warning, note in ordered_notes(report.notes):
            lines.append(f"- {'**Warning:** ' if warning else ''}{escape_markdown(note)}")
    lines += _listing("Environment", report.environment) + _listing("Options", report.options)
    lines += ["", "### Artifacts", ""]
    for variant in ordered_variants(report):
        weights = "random weights, " if variant.random_weights else ""
        lines.append(
            f"- {escape_markdown(variant.label)} ({escape_markdown(variant.id)}): "
            f"{weights}SHA-256 {escape_markdown(variant.model_sha256)}"
        )
    return "\n".join(lines) + "\n"


def _listing(heading: str, values: Mapping[str, str]) -> list[str]:
    if not values:
        return []
    lines = [f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in values.items()]
    return ["", f"### {heading}", "", *lines]
