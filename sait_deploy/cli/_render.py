"""What commands share when they print: results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from sait_deploy.reports.table import Note, Severity, Table, warnings_first

_PIPED_WIDTH: Final = 200
"""Columns when the output is no terminal: a table cut at 80 would lose figures."""


def table(
    title: str | None, headings: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str] = ()
) -> RichTable:
    """Builds a table; columns after the first are figures, aligned to the right, unless named in ``words``."""
    made = RichTable(
        title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", show_header=any(headings)
    )
    for index, column in enumerate(headings):
        made.add_column(column, justify="left" if index == 0 or column in words else "right", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))  # Text: square brackets in a cell are no markup
    return made


def _console() -> Console:
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(width=None if terminal else _PIPED_WIDTH, highlight=False)


def columns() -> int:
    """Returns how wide results may be."""
    return _console().width


def show(*renderables: Any) -> None:
    """Prints results."""
    console = _console()
    for renderable in renderables:
        console.print(renderable, markup=False)


def show_tables(*tables: Table) -> None:
    """Prints tables, each with an empty line below it, then their notes: warnings on stderr, the others on stdout."""
    from sait_deploy.reports.text import render

    for one in tables:
        show(*render(one, columns()), "")
    show_notes([note for one in tables for note in one.notes])


def show_notes(notes: Iterable[Note]) -> None:
    """Prints notes, warnings first and on stderr."""
    for note in warnings_first(notes):
        if note.severity is Severity.WARNING:
            warn(note.text)
        else:
            show(note.text)


def counted(number: int, noun: str) -> str:
    """Returns the number with the noun, in the plural where that is right."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def progress(line: str) -> None:
    """Says what is being done."""
    click.echo(f"- {line}", err=True)


@contextlib.contextmanager
def live_progress(title: str) -> Iterator[Callable[[str, float], None]]:
    """Yields what is to be told of steps and of how far they are: a bar in a terminal, a line for each step elsewhere.

    Args:
        title: what is being worked on.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        told: set[str] = set()

        def tell(step: str, share: float) -> None:
            if step not in told:
                told.add(step)
                progress(f"{title}: {step}")

        yield tell
        return
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as bars:
        known: dict[str, TaskID] = {}

        def show_share(step: str, share: float) -> None:
            if step not in known:
                known[step] = bars.add_task(f"{title}: {step}", total=1.0)
            bars.update(known[step], completed=share)

        yield show_share


def warn(line: str) -> None:
    """Says what a user should know before trusting a result."""
    click.echo(f"warning: {line}", err=True)
