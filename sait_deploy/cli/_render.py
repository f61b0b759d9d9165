"""What commands share when they print: results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.segment import Segment, Segments

from sait_deploy.cli._lines import say, wrapped
from sait_deploy.cli._verbosity import Verbosity, verbosity
from sait_deploy.reports.escape import plain
from sait_deploy.reports.table import Note, Severity, Table, warnings_first
from sait_deploy.system.progress import Progress, logged, no_progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

DEFAULT_WORKSPACE: Final = Path("artifacts")
"""Where artifacts are put and looked for unless a command is told otherwise."""

_MOST_DIGITS: Final = 6
_PIPED_WIDTH: Final = 200
"""Columns when the output is no terminal and COLUMNS says nothing: a file has room for whole tables."""

_SECONDS_BETWEEN_LINES: Final = 10
"""How often the share of one step is printed when stderr is no terminal."""


def _console() -> Console:
    if sys.stdout is not None and sys.stdout.isatty():
        return Console(highlight=False)
    said = os.environ.get("COLUMNS", "")
    width = int(said) if said.isdecimal() and len(said) <= _MOST_DIGITS else 0
    return Console(width=width or _PIPED_WIDTH, highlight=False)


def columns() -> int:
    """Returns how wide results may be."""
    return _console().width


def show(*renderables: Any) -> None:
    """Prints results."""
    console = _console()
    for renderable in renderables:
        if isinstance(renderable, str):
            text = wrapped(plain(renderable), console.width)
            console.print(text, markup=False, soft_wrap=True)
        else:
            console.print(Segments(_without_trailing_blanks(console, renderable)), end="", soft_wrap=True)


def _without_trailing_blanks(console: Console, renderable: Any) -> Iterator[Segment]:
    """Yields what a table is printed as; rich fills its last column with blanks."""
    for line in Segment.split_lines(console.render(renderable)):
        while line and not line[-1].text.rstrip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        yield from (*line, Segment.line())


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


_UNUSUAL: Final[dict[Verbosity, Progress]] = {Verbosity.QUIET: no_progress, Verbosity.VERBOSE: logged}
"""Where steps go that are neither drawn nor printed."""


class _Lines:
    """Progress in lines on stderr: each step as it begins, and every ten seconds how much of it is done."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __call__(self, step: str, share: float | None = None, /) -> None:
        if verbosity() is not Verbosity.NORMAL:
            _UNUSUAL[verbosity()](step, share)
            return
        now = time.monotonic()
        if share is None or step not in self._shown:
            say(f"- {step}")
            self._shown[step] = now
        elif now - self._shown[step] >= _SECONDS_BETWEEN_LINES:
            say(f"- {step}: {share:.0%}")
            self._shown[step] = now


progress: Final[Progress] = _Lines()
"""Says what is being done, in a line; ``live_progress`` also shows for how long, and how much of it is done."""


class _Bars:
    """Progress in a terminal: a bar for each step that goes on.

    A step whose share was reported vanishes when it ends. Others may be facts, and stay as lines.
    """

    def __init__(self, bars: RichProgress, keep_lines: bool) -> None:
        self._bars, self._keep_lines = bars, keep_lines
        self._running: dict[str, TaskID] = {}
        self._unmeasured: str | None = None

    def __call__(self, step: str, share: float | None = None, /) -> None:
        if step not in self._running:
            # Steps whose share is known may go on side by side; another one ends when the next step begins.
            self._end_unmeasured()
            self._unmeasured = step if share is None else None
            self._running[step] = self._bars.add_task(plain(step), total=None if share is None else 1.0)
        if share is not None:
            self._bars.update(self._running[step], completed=share)
            if share >= 1:
                self._bars.remove_task(self._running.pop(step))
        if not self._bars.live.auto_refresh:
            self._bars.refresh()

    def end_all(self) -> None:
        """Takes away the bars that are left."""
        self._end_unmeasured()
        for task in self._running.values():
            self._bars.remove_task(task)

    def _end_unmeasured(self) -> None:
        step = self._unmeasured
        if step is None or step not in self._running:
            return
        self._bars.remove_task(self._running.pop(step))
        if self._keep_lines:
            console = self._bars.console
            console.print(wrapped(f"- {plain(step)}", console.width), markup=False, soft_wrap=True)


@contextlib.contextmanager
def live_progress(*, keep_lines: bool = True, animated: bool = True) -> Iterator[Progress]:
    """Yields what shows the progress of a stage: bars in a terminal, lines elsewhere.

    Args:
        keep_lines: whether lines of steps remain, in a terminal of those whose share is not known; without, a terminal
            alone shows them, while they go on.
        animated: whether bars move between two reports, which takes a thread: it would disturb a benchmark, and may
            not be there where a process forks.
    """
    if verbosity() is not Verbosity.NORMAL:
        yield _UNUSUAL[verbosity()]
        return
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


def show_next(*words: object) -> None:
    """Says on stderr what to type next, after ``sait-deploy``."""
    if verbosity() is not Verbosity.QUIET:
        click.echo(plain(f"next: {shlex.join(('sait-deploy', *map(str, words)))}"), err=True)  # whole, to be copied


def workspace_words(workspace: Path) -> tuple[str, ...]:
    """Returns the option that names a workspace, nothing for the default one."""
    return () if workspace == DEFAULT_WORKSPACE else ("--workspace", str(workspace))


def images_words(images: Path | None) -> tuple[str, ...]:
    """Returns the option that names images, nothing where none were named."""
    return () if images is None else ("--images", str(images))


def warn(line: str) -> None:
    """Says what a user should know before trusting a result."""
    say(f"warning: {line}")
