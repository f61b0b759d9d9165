"""Documents as one self-contained HTML page each: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sait_deploy.reports import palette
from sait_deploy.reports.document import Document
from sait_deploy.reports.escape import plain
from sait_deploy.reports.table import Row, Table, warnings_first

_TEMPLATE: Final = "page.html.j2"
_COLOURS: Final = {
    "paper": palette.PAPER,
    "ink": palette.INK,
    "muted": palette.MUTED,
    "rule": palette.RULE,
    "amber": palette.AMBER,
    "amber-paper": palette.AMBER_PAPER,
    "shade": palette.SHADE,
    "good": palette.GOOD,
    "bad": palette.BAD,
}


def to_html(document: Document) -> str:
    """Returns a document as a page. Every text is escaped but the plots' SVG, in light and in dark."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters["groups"] = _groups
    return environment.get_template(_TEMPLATE).render(
        document=document,
        notes=warnings_first(document.notes),
        colours=_COLOURS,
        series=[palette.BASELINE, *palette.SERIES],
        warnings_first=warnings_first,
        svg=Markup,
    )


def _printable(value: object) -> object:
    return plain(value) if type(value) is str else value


def _groups(table: Table) -> list[list[Row]]:
    """Returns the rows of each group."""
    groups: list[list[Row]] = []
    for row in table.rows:
        if row.begins_group or not groups:
            groups.append([])
        groups[-1].append(row)
    return groups
