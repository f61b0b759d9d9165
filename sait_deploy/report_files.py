"""Results as files: the format follows from the ending of the file's name, for the command line and Python alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from sait_deploy.artifacts.files import write_whole
from sait_deploy.bench import csvform, jsonform
from sait_deploy.bench.results import Report
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation import report as evaluation_report
from sait_deploy.evaluation import results as evaluation_results
from sait_deploy.evaluation.results import Evaluation
from sait_deploy.recommending import report as recommending_report
from sait_deploy.recommending import results as recommending_results
from sait_deploy.recommending.results import Recommendation
from sait_deploy.reports.csv_lines import flat, to_csv
from sait_deploy.reports.drawing import require_matplotlib

Result: TypeAlias = Report | Evaluation | Recommendation


def _bench_html(report: Report) -> str:
    from sait_deploy.bench.document import to_html

    return to_html(report)


def _bench_markdown(report: Report) -> str:
    from sait_deploy.bench.document import to_markdown

    return to_markdown(report)


_WRITERS: Final[dict[type, dict[str, Callable[[Any], str]]]] = {
    Report: {
        ".json": jsonform.to_json,
        ".csv": csvform.report_to_csv,
        ".html": _bench_html,
        ".md": _bench_markdown,
    },
    Evaluation: {
        ".json": evaluation_results.to_json,
        ".csv": lambda evaluation: to_csv(map(flat, evaluation.rows)),
        ".md": evaluation_report.to_markdown,
        ".html": evaluation_report.to_html,
        ".svg": evaluation_report.to_svg,
    },
    Recommendation: {
        ".json": recommending_results.to_json,
        ".csv": lambda found: to_csv(map(flat, found.candidates)),
        ".md": recommending_report.to_markdown,
        ".html": recommending_report.to_html,
        ".svg": recommending_report.front_plot,
    },
}


def check_ending(kind: type[Result], place: Path) -> None:
    """Checks that a kind of result can be written in the format of a file's name.

    Raises:
        InvalidArgument: the ending is not known.
        MissingDependency: it is a plot's, and matplotlib is not installed.
    """
    _writer(kind, place)


def write_report(result: Result, place: str | os.PathLike[str]) -> None:
    """Writes a benchmark, an evaluation or a recommendation to a file.

    Example::

        report = sait_deploy.benchmark("artifacts/sait_demo_digits-density0.6")
        for ending in ("json", "csv", "html", "md"):
            sait_deploy.write_report(report, f"bench.{ending}")

    Args:
        result: what ``benchmark``, ``evaluate`` or ``recommend`` returned.
        place: the file; ``.json``, ``.csv``, ``.html``, ``.md``, or of all but a benchmark ``.svg``.

    Raises:
        InvalidArgument: the ending is not known.
        MissingDependency: it is a plot's, and matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    write_whole(Path(place), _writer(type(result), Path(place))(result))


def _writer(kind: type[Result], place: Path) -> Callable[[Any], str]:
    ending, writers = place.suffix.lower(), _WRITERS[kind]
    if ending not in writers:
        raise InvalidArgument(f"report {place} has no known ending", f"use one of {', '.join(writers)}")
    if ending == ".svg":
        require_matplotlib()
    return writers[ending]
