"""Tables and documents as GitHub Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sait_deploy.reports.document import Document, Section
from sait_deploy.reports.escape import escape_markdown
from sait_deploy.reports.table import Align, Cell, Emphasis, Note, Severity, Table, warnings_first


def table_lines(table: Table) -> list[str]:
    """Returns the lines of a table without its title and notes."""
    head = [escape_markdown(column.head) for column in table.columns]
    rule = ["---" if column.align is Align.LEFT else "---:" for column in table.columns]
    return [_line(head), _line(rule), *(_line(map(_cell, row.cells)) for row in table.rows)]


def note_lines(notes: Iterable[Note]) -> list[str]:
    """Returns notes as a list, warnings first."""
    return [f"- {_warning(note)}{escape_markdown(note.text)}" for note in warnings_first(notes)]


def to_markdown(document: Document) -> str:
    """Returns a document; plots are left out."""
    lines = [f"## {escape_markdown(document.title)}"]
    for paragraph in ([document.headline] if document.headline else []) + list(document.about):
        lines += ["", escape_markdown(paragraph)]
    for section in document.sections:
        lines += _section(section)
    lines += _listed("Notes", note_lines(document.notes))
    for listing in document.listings:
        facts = [f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in listing.facts.items()]
        lines += _listed(listing.heading, facts)
    return "\n".join(lines) + "\n"


def _section(section: Section) -> list[str]:
    lines = ["", f"### {escape_markdown(section.heading)}"] if section.heading else []
    for table in section.tables:
        lines += ["", f"{'####' if section.heading else '###'} {escape_markdown(table.title)}"] if table.title else []
        lines += ["", *table_lines(table)]
        lines += ["", *note_lines(table.notes)] if table.notes else []
    return lines + (["", *(f"- {escape_markdown(line)}" for line in section.lines)] if section.lines else [])


def _listed(heading: str, items: Sequence[str]) -> list[str]:
    return ["", f"### {escape_markdown(heading)}", "", *items] if items else []


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"**{text}**" if text and cell.emphasis is Emphasis.STRONG else text


def _warning(note: Note) -> str:
    return "**Warning:** " if note.severity is Severity.WARNING else ""
