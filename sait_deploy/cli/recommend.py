"""``sait-deploy recommend``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sait_deploy.artifacts.files import read_document
from sait_deploy.artifacts.folder import Workspace
from sait_deploy.bench import jsonform as bench_json
from sait_deploy.bench.run import BenchOptions
from sait_deploy.bench.variants import Sweep
from sait_deploy.cli._command import Command
from sait_deploy.cli._options import (
    artifacts_argument,
    class_map_option,
    consent_options,
    device_option,
    images_option,
    json_option,
    reports_option,
    threads_option,
    workspace_option,
)
from sait_deploy.cli._outputs import check_outputs, write_outputs
from sait_deploy.cli._render import live_progress, show, show_json, show_notes, show_tables
from sait_deploy.errors import InvalidArgument, TargetMissed
from sait_deploy.evaluation import results as evaluation_json
from sait_deploy.recommending.measure import measure_candidates
from sait_deploy.recommending.report import candidates_table
from sait_deploy.recommending.results import DEFAULT_DROP, Recommendation, RecommendOptions, to_json
from sait_deploy.recommending.stage import recommend
from sait_deploy.reports.table import Severity
from sait_deploy.runtime.registry import is_default_device

if TYPE_CHECKING:
    from sait_deploy.bench.results import Report

Read = TypeVar("Read")

_FLAGS: Final = {"class_map": "--class-map", "masses": "--mass", "points": "--point"}


@click.command(cls=Command, example="sait-deploy recommend --max-drop 0.5 --images photos/ -o choice.html")
@artifacts_argument
@click.option(
    "--max-drop",
    type=float,
    metavar="P",
    help="Points of accuracy that may be lost to dense; the fastest that keeps to it is chosen.  "
    f"[default: {DEFAULT_DROP:g} where no limit is given and accuracies are known]",
)
@click.option(
    "--max-latency",
    type=float,
    metavar="MS",
    help="Milliseconds that a request may take, by the median; without --max-drop the most accurate is chosen.",
)
@click.option(
    "--batch",
    type=int,
    metavar="N",
    help="Images per request.  [default: with --max-latency the fewest measured, else the most]",
)
@click.option(
    "--bench",
    "bench_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A benchmark's JSON report.  [default: measure the artifacts on all runtimes and in all precisions here]",
)
@click.option(
    "--evaluation",
    "evaluation_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="An evaluation's JSON report, for accuracies on its images.  [default: the benchmark's accuracies]",
)
@images_option("Images to measure on.")
@class_map_option
@device_option
@threads_option
@click.option("--mass", "masses", multiple=True, metavar="M", help="Measure adaptive artifacts at it; repeatable.")
@click.option("--point", "points", multiple=True, metavar="NAME", help="Measure them at this point; repeatable.")
@click.option("--kept", "kept", multiple=True, metavar="MEAN:SD", help="Force how many tokens they keep; repeatable.")
@click.option("--duration", type=float, default=10.0, show_default=True, metavar="S", help="Seconds to measure.")
@workspace_option
@reports_option("recommendation")
@json_option
@consent_options
def command(
    artifacts: tuple[Path, ...],
    max_drop: float | None,
    max_latency: float | None,
    batch: int | None,
    bench_file: Path | None,
    evaluation_file: Path | None,
    workspace: Path,
    outputs: tuple[Path, ...],
    as_json: bool,
    **measuring: Any,
) -> None:
    """Choose what to deploy: which point, on which runtime, in which precision.

    Of all that was measured, what nothing else beats in accuracy, speed and memory at once is the Pareto front, and the
    choice is made from it. Drops are counted from dense, in fp32 where that was measured. Where nothing keeps to the
    limits, the exit code is 10.
    """
    options = RecommendOptions(max_drop, max_latency, batch)
    check_outputs(Recommendation, outputs)
    evaluation = None if evaluation_file is None else _read(evaluation_file, evaluation_json.from_json, "evaluate")
    if bench_file is not None:
        _check_unmeasured(artifacts, measuring)
        report = _read(bench_file, bench_json.from_json, "bench")
    else:
        report = _measured(artifacts or Workspace(workspace).last_export(), options, measuring)
    found = recommend(report, options, artifacts[0].parent if artifacts else workspace, evaluation)
    _show(found, as_json)
    write_outputs(found, outputs)
    if found.chosen is None:
        raise TargetMissed(found.message, "raise the limit, or measure other points: sait-deploy bench --mass M")


def _measured(artifacts: Sequence[Path], options: RecommendOptions, measuring: dict[str, Any]) -> Report:
    bench_options = BenchOptions(
        threads=measuring["threads"],
        images=measuring["images"],
        class_map=measuring["class_map"],
        device=measuring["device"],
        duration=measuring["duration"],
        sweep=Sweep.parse(measuring["masses"], measuring["points"], measuring["kept"]),
    )
    with live_progress(animated=False) as steps:
        return measure_candidates(artifacts, options, bench_options, steps)


def _read(path: Path, reader: Callable[[str], Read], command_name: str) -> Read:
    return read_document(path, reader, f"make it with: sait-deploy {command_name} -o {path.name}")


def _check_unmeasured(artifacts: tuple[Path, ...], measuring: dict[str, Any]) -> None:
    """Refuses what says how to measure beside a benchmark, where nothing is measured."""
    names = ("images", "class_map", "threads", "masses", "points", "kept")
    given = ["ARTIFACT"] * bool(artifacts) + [_FLAGS.get(name, f"--{name}") for name in names if measuring[name]]
    given += ["--device"] * (not is_default_device(measuring["device"]))
    if given:
        raise InvalidArgument(f"with --bench nothing is measured, and {given[0]} says how", "leave one of them out")


def _show(found: Recommendation, as_json: bool) -> None:
    notes = found.notes
    if as_json:
        show_json(to_json(found))
        notes = tuple(note for note in notes if note.severity is Severity.WARNING)
    else:
        show_tables(candidates_table(found))
        show("")
    show_notes(notes)
    if not as_json and found.chosen is not None:
        show("", found.message, *(f"    {line}" for line in found.commands))
