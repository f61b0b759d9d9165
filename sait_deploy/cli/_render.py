"""What commands share when they print: results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from sait_deploy.reports.escape import plain
from sait_deploy.reports.table import Note, Severity, Table, warnings_first
from sait_deploy.system.progress import Progress, no_progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_PIPED_WIDTH: Final = 200
"""Columns when the output is no terminal: a table cut at 80 would lose figures."""

_SECONDS_BETWEEN_LINES: Final = 10
"""How often the share of one step is printed when stderr is no terminal."""


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
        console.print(plain(renderable) if isinstance(renderable, str) else renderable, markup=False)


def show_tables(*tables: Table) -> None:
    """Prints tables with empty lines between them, and below each its notes: warnings on stderr, others on stdout."""
    from sait_deploy.reports.text import render

    for index, one in enumerate(tables):
        show(*([""] if index else []), *render(one, columns()))
        show_notes(one.notes)


def show_notes(notes: Iterable[Note]) -> None:
    """Prints notes, warnings first and on stderr."""
    for note in warnings_first(notes):
        if note.severity is Severity.WARNING:
            warn(note.text)
        else:
            show(note.text)


def show_json(text: str) -> None:
    """Prints a JSON document with every character outside ASCII escaped: some of them move a terminal's cursor."""
    click.echo(json.dumps(json.loads(text), indent=2))


def counted(number: int, noun: str) -> str:
    """Returns the number with the noun, in the plural where that is right."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class _Lines:
    """Progress in lines on stderr: each step as it begins, and every ten seconds how much of it is done."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __call__(self, step: str, share: float | None = None, /) -> None:
        now = time.monotonic()
        if share is None or step not in self._shown:
            click.echo(f"- {plain(step)}", err=True)
            self._shown[step] = now
        elif now - self._shown[step] >= _SECONDS_BETWEEN_LINES:
            click.echo(f"- {plain(step)}: {share:.0%}", err=True)
            self._shown[step] = now


progress: Final[Progress] = _Lines()
"""Says what is being done, in a line; ``live_progress`` also shows for how long, and how much of it is done."""


class _Bars:
    """Progress in a terminal: a bar for each step that goes on, and a line for each that has ended."""

    def __init__(self, bars: RichProgress, keep_lines: bool) -> None:
        self._bars, self._keep_lines = bars, keep_lines
        self._running: dict[str, TaskID] = {}
        self._unmeasured: str | None = None

    def __call__(self, step: str, share: float | None = None, /) -> None:
        if step not in self._running:
            # Steps whose share is known may go on side by side; another one ends when the next step begins.
            if self._unmeasured in self._running:
                self._end(self._unmeasured)
            self._unmeasured = step if share is None else None
            self._running[step] = self._bars.add_task(plain(step), total=None if share is None else 1.0)
        if share is not None:
            self._bars.update(self._running[step], completed=share)
            if share >= 1:
                self._end(step)
        if not self._bars.live.auto_refresh:
            self._bars.refresh()

    def end_all(self) -> None:
        """Turns the bars that are left into lines."""
        for step in list(self._running):
            self._end(step)

    def _end(self, step: str) -> None:
        self._bars.remove_task(self._running.pop(step))
        if self._keep_lines:
            self._bars.console.print(f"- {plain(step)}", markup=False)


@contextlib.contextmanager
def live_progress(*, keep_lines: bool = True, animated: bool = True) -> Iterator[Progress]:
    """Yields what shows the progress of a stage: bars in a terminal, lines elsewhere.

    Args:
        keep_lines: whether a line of each step remains; without, a terminal alone shows them, while they go on.
        animated: whether bars move between two reports, which takes a thread: it would disturb a benchmark, and may
            not be there where a process forks.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield _Lines() if keep_lines else no_progress
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    console = Console(stderr=True, highlight=False)
    with RichProgress(
        *columns,
        console=console,
        transient=True,
        auto_refresh=animated,
        refresh_per_second=5,
        redirect_stdout=animated,
        redirect_stderr=animated,
    ) as bars:
        report = _Bars(bars, keep_lines)
        try:
            yield report
        finally:
            report.end_all()


def warn(line: str) -> None:
    """Says what a user should know before trusting a result."""
    click.echo(f"warning: {plain(line)}", err=True)
