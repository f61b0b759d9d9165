"""Files that a command writes its report to: checked before anything is measured, and named when written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sait_deploy.artifacts.files import check_writable
from sait_deploy.cli._render import progress, warn
from sait_deploy.report_files import Result, check_ending, write_report
from sait_deploy.reports.drawing import NO_PLOTS, has_matplotlib


def check_formats(kind: type[Result], outputs: Iterable[Path]) -> None:
    """Checks that every file has a format of the report's, and warns of pages that will have no plots.

    Raises:
        InvalidArgument: the ending of a file's name is not known.
        MissingDependency: it is a plot's, and matplotlib is not installed.
    """
    for output in outputs:
        check_ending(kind, output)
        if output.suffix.lower() == ".html" and not has_matplotlib():
            warn(NO_PLOTS.text)


def check_outputs(kind: type[Result], outputs: tuple[Path, ...]) -> None:
    """Checks the formats of all files, then that each can be written.

    Raises:
        InvalidArgument: the ending of a file's name is not known.
        MissingDependency: it is a plot's, and matplotlib is not installed.
        StorageError: a file cannot be written.
    """
    check_formats(kind, outputs)
    for output in outputs:
        check_writable(output)


def write_outputs(result: Result, outputs: Iterable[Path]) -> None:
    """Writes a report to every file and names it."""
    for output in outputs:
        write_report(result, output)
        progress(f"wrote {output}")
