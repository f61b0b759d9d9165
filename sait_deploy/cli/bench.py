"""``sait-deploy bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from sait_deploy.artifacts.files import check_writable
from sait_deploy.artifacts.folder import Artifact, Workspace
from sait_deploy.bench.common_tables import report_tables
from sait_deploy.bench.group_results import Skip
from sait_deploy.bench.jsonform import to_json
from sait_deploy.bench.results import Refusal, Report, Timing, names_of
from sait_deploy.bench.run import AccuracyOf, Also, BenchOptions, bench, with_baseline
from sait_deploy.bench.variants import Sweep
from sait_deploy.cli import _completion
from sait_deploy.cli._command import Command
from sait_deploy.cli._options import (
    artifacts_argument,
    class_map_option,
    consent_options,
    device_option,
    images_option,
    json_option,
    listed,
    threads_option,
    workspace_option,
)
from sait_deploy.cli._outputs import check_formats, write_outputs
from sait_deploy.cli._render import (
    images_words,
    live_progress,
    show,
    show_json,
    show_next,
    show_notes,
    show_tables,
    workspace_words,
)
from sait_deploy.errors import InvalidArgument, SaitError, TargetMissed
from sait_deploy.reports.table import Severity
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import ONNXRUNTIME, RUNTIMES
from sait_deploy.system.option_values import chosen


@click.command(cls=Command, example="sait-deploy bench --batch 1,8 --images photos/ -o report.html")
@artifacts_argument
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="LIST",
    shell_complete=_completion.runtimes,
    help=f"Some of {', '.join(RUNTIMES)}.  [default: onnxruntime, and those that there are engines of]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="LIST",
    help=f"Some of {', '.join(RunPrecision)}, on each runtime.  [default: what artifacts and engines are made for]",
)
@click.option("--batch", "batches", default="1,8,32", show_default=True, metavar="LIST", help="Images per request.")
@device_option
@threads_option
@images_option("Images to time and measure accuracy on; subfolders are classes.")
@class_map_option
@click.option("--no-accuracy", is_flag=True, help="Measure speed alone.")
@click.option("--mass", "masses", multiple=True, metavar="M", help="Run adaptive artifacts at this mass; repeatable.")
@click.option("--point", "points", multiple=True, metavar="NAME", help="Run them at this named point; repeatable.")
@click.option(
    "--kept",
    "kept",
    multiple=True,
    metavar="MEAN:SD",
    help="Force how many patch tokens images keep, a normal distribution: speed, whatever the images; repeatable.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="Rounds not counted, per batch size.",
)
@click.option(
    "--duration", type=float, default=10.0, show_default=True, metavar="S", help="Seconds to measure, per batch size."
)
@click.option(
    "--timing",
    type=click.Choice([choice.value for choice in Timing]),
    default=Timing.END_TO_END.value,
    show_default=True,
    help="What the clock covers.",
)
@click.option(
    "--min-speedup",
    type=float,
    metavar="X",
    help="Fail (exit 10) where a pruned artifact's median speed-up is below X.",
)
@click.option("--memory", is_flag=True, help="Also measure each variant's peak memory, in a process of its own.")
@click.option("--roofline", is_flag=True, help="Also measure what this machine can do, and each row's share of it.")
@workspace_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report: .json, .csv, .html or .md.",
)
@json_option
@consent_options
def command(
    artifacts: tuple[Path, ...],
    min_speedup: float | None,
    workspace: Path,
    output: Path | None,
    as_json: bool,
    **measuring: Any,
) -> None:
    """Measure artifacts against their dense baseline, interleaved run by run.

    With no ARTIFACT, what was exported last is measured. Adaptive artifacts run at their named points, or at those that
    --mass, --point and --kept name. Each runtime is measured by itself, against dense on the same; what cannot run here
    is said in its row, and fails in the end where its runtime was asked for.

    With --precision each runtime is measured in each precision, against dense in the same, and all of them against the
    fastest dense of all. A runtime and precision that do not go together here are skipped, and so is a runtime that
    does not run on --device here.
    """
    outputs = () if output is None else (output,)
    check_formats(Report, outputs)
    _check_factor(min_speedup)
    options = _options(measuring)
    opened = with_baseline(artifacts or Workspace(workspace).last_export())
    if min_speedup is not None:
        _check_pruned(opened)
    if output is not None:
        check_writable(output)
    with live_progress(animated=False) as steps:
        report = bench(opened, options, steps)
    if as_json:
        show_json(to_json(report))
        show_notes(note for note in report.notes if note.severity is Severity.WARNING)
    else:
        show_tables(*report_tables(report))
        show("")
        show_notes(report.notes)
    write_outputs(report, outputs)
    if not as_json:
        _show_next(opened, workspace, output, options.images)
    if min_speedup is not None:
        _require(report, min_speedup)
    _require_run(report, options.runtimes or (ONNXRUNTIME,))


def _show_next(opened: Sequence[Artifact], workspace: Path, output: Path | None, images: Path | None) -> None:
    """A report that recommend reads leads to it, and an artifact that prunes to its accuracy."""
    pruned = next((one for one in reversed(opened) if one.manifest.pruning is not None), None)
    if output is not None and output.suffix.lower() == ".json":
        show_next("recommend", "--bench", output, *workspace_words(workspace))
    elif pruned is not None and pruned.manifest.model.tower is None:
        show_next("evaluate", pruned.path, *images_words(images))


def _options(given: dict[str, Any]) -> BenchOptions:
    """Returns what to measure, from the command line's options of that."""
    return BenchOptions(
        batches=_parse_batches(given["batches"]),
        runtimes=listed(given["runtimes"]),
        precisions=tuple(chosen(RunPrecision, value, "--precision") for value in listed(given["precisions"])),
        threads=given["threads"],
        device=given["device"],
        images=given["images"],
        class_map=given["class_map"],
        accuracy=AccuracyOf.NONE if given["no_accuracy"] else AccuracyOf.TRAINED,
        timing=Timing(given["timing"]),
        warmup=given["warmup"],
        duration=given["duration"],
        sweep=Sweep.parse(given["masses"], given["points"], given["kept"]),
        also=frozenset([Also.MEMORY] * given["memory"] + [Also.ROOFLINE] * given["roofline"]),
    )


def _check_factor(least: float | None) -> None:
    if least is not None and not 0 < least < float("inf"):
        raise InvalidArgument(f"--min-speedup {least:g} is no factor", "give a positive number such as 1.2")


def _check_pruned(opened: Sequence[Artifact]) -> None:
    if len(opened) == 1:
        raise InvalidArgument(
            f"--min-speedup has nothing to judge: {opened[0].path.name} is the dense baseline itself",
            "bench a pruned artifact",
        )


def _parse_batches(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InvalidArgument(f"--batch {text!r} is not a list of numbers", "give it as 1,8,32") from None


def _require(report: Report, least: float) -> None:
    names = names_of(report.variants)
    for row in report.rows:
        if row.speedup is not None and row.speedup.median < least:
            raise TargetMissed(
                f"{names[row.variant]} at batch {row.batch} is {row.speedup.median:.2f} times as fast as dense, "
                f"below --min-speedup {least:g}",
                "see the table above",
            )


def _require_run(report: Report, runtimes: Sequence[str]) -> None:
    """Fails as the first thing did that could not run on these runtimes, or where all was skipped as the first was."""
    found = {variant.id: variant for variant in report.variants if variant.runtime in runtimes}
    for refusal in report.refusals:
        if refusal.variant in found:
            variant = found[refusal.variant]
            _fail(f"{variant.label} cannot run on {variant.group} here: {refusal.reason}", refusal)
    if not report.rows and report.skipped:
        skip = report.skipped[0]
        _fail(f"{skip.group} is skipped: {skip.reason}", skip)


def _fail(message: str, like: Refusal | Skip) -> NoReturn:
    error = SaitError(message, like.hint)
    error.exit_code = like.exit_code
    raise error
