"""Tables as rich prints them in a terminal: fitted to its width, breaking between words, and figures never."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from sait_deploy.reports.escape import plain
from sait_deploy.reports.table import Cell, Emphasis, Fold, Table

_STYLES: Final = {
    Emphasis.NONE: "",
    Emphasis.STRONG: "bold",
    Emphasis.FAINT: "dim",
    Emphasis.GOOD: "green",
    Emphasis.BAD: "red",
}
_PHRASES: Final = re.compile(r" / | (?=[\[(])")
_SLASH: Final = "/\N{NO-BREAK SPACE}"
_WIDE, _NARROW = 2, 1
"""Spaces between columns."""


def render(table: Table, columns: int) -> list[RichTable]:
    """Returns a table as rich prints it, or where it is too wide parts of it that each repeat the names of its rows.

    Before a table is parted the gaps between its columns narrow, then its headings break into lines, then phrases where
    a column allows that, then words.

    Args:
        table: what to show; its notes are left to the caller.
        columns: width of the terminal.
    """
    table = _printable(table)
    table = dataclasses.replace(table, title=_filled(table.title, columns))
    lined = [table, _with_broken_headings(table), _with_broken_headings(_with_broken_phrases(table))]
    for candidate, gap in ((table, _WIDE), *((candidate, _NARROW) for candidate in lined)):
        made = _rich(candidate, gap)
        if _measured(made).maximum <= columns:
            return [made]
    for candidate in lined:
        made = _rich(candidate)
        if _measured(made).minimum <= columns:
            return [_fitted(made, columns)]
    return _parts(lined[-1], columns)


def _printable(table: Table) -> Table:
    """Returns the table with every text on one line and without control characters, texts that repeat left out."""
    once = [column.once for column in table.columns]
    rows, above = [], None
    for row in table.rows:
        repeats = above is not None and not row.begins_group
        cells = [
            dataclasses.replace(cell, text="" if hidden and repeats else plain(cell.text))
            for cell, hidden in zip(row.cells, once, strict=True)
        ]
        rows.append(dataclasses.replace(row, cells=tuple(cells)))
        above = row
    columns = [dataclasses.replace(c, heading=plain(c.heading), unit=plain(c.unit)) for c in table.columns]
    return Table(plain(table.title), tuple(columns), tuple(rows))


def _with_broken_headings(table: Table) -> Table:
    """Returns the table with headings in lines no longer than the column's widest cell, or their longest word."""
    columns = []
    for index, column in enumerate(table.columns):
        phrases = column.head.replace("/ ", _SLASH)  # a slash stays with what follows it
        width = max(_width(table, index), *(map(cell_len, phrases.split(" "))), 1)
        head = _filled(phrases, width)
        columns.append(dataclasses.replace(column, heading=head.replace(_SLASH, "/ "), unit=""))
    return dataclasses.replace(table, columns=tuple(columns))


def _filled(text: str, width: int) -> str:
    """Breaks a text between words; a word that is too wide juts out."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _with_broken_phrases(table: Table) -> Table:
    folds = [column.fold is Fold.PHRASES for column in table.columns]
    rows = [
        dataclasses.replace(row, cells=tuple(_broken(c) if f else c for c, f in zip(row.cells, folds, strict=True)))
        for row in table.rows
    ]
    return dataclasses.replace(table, rows=tuple(rows))


def _broken(cell: Cell) -> Cell:
    return dataclasses.replace(cell, text=_PHRASES.sub("\n", cell.text))


def _rich(table: Table, gap: int = _NARROW) -> RichTable:
    grouped = any(row.begins_group for row in table.rows)
    made = RichTable(
        title=Text(table.title, no_wrap=True, overflow="ignore") if table.title else None,
        title_justify="left",
        box=box.HORIZONTALS if grouped else None,
        show_edge=False,
        # The box of groups brings a space of its own between columns.
        padding=(0, gap - 1 if grouped else gap, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_header=table.has_head,
    )
    for index, column in enumerate(table.columns):
        folds = column.fold is Fold.WORDS
        texts = [column.head, *(row.cells[index].text for row in table.rows)]
        if folds:
            least = max(cell_len(word) for text in texts for word in (text.split() or [""]))
        else:
            least = max(_width(table, index), *map(cell_len, column.head.split("\n")))
        made.add_column(
            Text(column.head), justify=column.align.value, no_wrap=not folds, overflow="fold", min_width=least
        )
    for row in table.rows:
        if row.begins_group:
            made.add_section()
        made.add_row(*(Text(cell.text, _STYLES[cell.emphasis]) for cell in row.cells))
    return made


def _width(table: Table, index: int) -> int:
    """Returns how wide the cells of a column are."""
    return max((cell_len(line) for row in table.rows for line in row.cells[index].text.split("\n")), default=0)


def _measured(table: RichTable) -> Measurement:
    console = Console(width=10_000)
    return Measurement.get(console, console.options, table)


def _parts(table: Table, columns: int) -> list[RichTable]:
    """Returns as many tables as it takes, each with the columns that name its rows: up to the first one of words."""
    lead = table.name_column + 1
    names = list(range(lead))
    chosen, made = list(names), []
    for index in range(lead, len(table.columns)):
        fits = _measured(_rich(_only(table, [*chosen, index]))).minimum <= columns
        if len(chosen) > lead and not fits:
            made.append(_only(table, chosen))
            chosen = list(names)
        chosen.append(index)
    made.append(_only(table, chosen))
    return [_whole(part if n == 0 else dataclasses.replace(part, title=""), columns) for n, part in enumerate(made)]


def _whole(table: Table, columns: int) -> RichTable:
    """Returns a part as rich prints it; where a word alone is too wide, it juts out rather than break."""
    made = _rich(table)
    return _fitted(made, max(columns, _measured(made).minimum))


def _fitted(made: RichTable, columns: int) -> RichTable:
    """Shares what room there is among columns, those that lack least first; rich goes below their longest word."""
    wanted = [max(cell_len(line) for cell in one.cells for line in str(cell).split("\n")) for one in made.columns]
    wanted = [max(found, cell_len(str(one.header))) for found, one in zip(wanted, made.columns, strict=True)]
    least = [min(one.min_width or 0, want) for one, want in zip(made.columns, wanted, strict=True)]
    measured = _measured(made)
    if measured.maximum > columns:
        left = columns - measured.minimum
        lacking = sorted(range(len(wanted)), key=lambda index: wanted[index] - least[index])
        for place, index in enumerate(lacking):
            more = min(wanted[index] - least[index], left // (len(lacking) - place))
            made.columns[index].width = least[index] + more
            left -= more
    return made


def _only(table: Table, chosen: Sequence[int]) -> Table:
    rows = tuple(dataclasses.replace(row, cells=tuple(row.cells[i] for i in chosen)) for row in table.rows)
    return Table(table.title, tuple(table.columns[i] for i in chosen), rows)
