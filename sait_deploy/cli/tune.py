"""``sait-deploy tune``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form
from sait_deploy.cli._command import Command
from sait_deploy.cli._options import (
    artifact_argument,
    class_map_option,
    consent_options,
    device_option,
    images_option,
    json_option,
    precision_option,
    runtime_option,
    threads_option,
    workspace_option,
)
from sait_deploy.cli._render import DEFAULT_WORKSPACE, live_progress, progress, show, show_tables, warn
from sait_deploy.errors import ArtifactError, InvalidArgument, TargetMissed
from sait_deploy.evaluation.tune import tune
from sait_deploy.evaluation.tune_report import tables
from sait_deploy.evaluation.tune_results import Outcome, Search, TuneOptions, TuneResult
from sait_deploy.evaluation.tune_splits import SplitOptions
from sait_deploy.evaluation.tune_trials import GRID, PointFamily
from sait_deploy.runtime.precision import RunPrecision

if TYPE_CHECKING:
    from enum import StrEnum

    Choice = TypeVar("Choice", bound=StrEnum)

_MAKE: Final = "sait-deploy export --mass 0.9"
"""What makes an artifact that can be tuned."""


@click.command(cls=Command, example="sait-deploy tune --max-drop 0.5 --images photos/", renamed={"--artifact": ""})
@artifact_argument(required=False)
@images_option("Images such as will be met; subfolders are classes.  [default: those that come with the model]")
@class_map_option
@click.option(
    "--check-images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Others to check the choice on.  [default: half of --images]",
)
@click.option("--max-drop", type=float, metavar="P", help="Points of top-1 that may be lost to dense; needs labels.")
@click.option(
    "--max-disagreement",
    type=float,
    metavar="P",
    help="Percent of images that may get another top-1 than dense's; of a model without a head, 100 (1 - cosine).",
)
@click.option(
    "--max-recall-drop",
    type=float,
    metavar="P",
    help="Of a model that embeds: percent of images whose nearest other image by dense may not be found.",
)
@click.option(
    "--recall-at", type=int, default=1, show_default=True, metavar="K", help="Among how many nearest: 1, 5 or 10."
)
@click.option(
    "--confidence", type=float, default=0.95, show_default=True, metavar="C", help="That the limit is kept, below 1."
)
@click.option(
    "--family",
    "families",
    type=click.Choice([choice.value for choice in PointFamily]),
    multiple=True,
    help="What is tried: masses, densities or both; repeatable.  [default: mass]",
)
@click.option(
    "--grid", metavar="LIST", help=f"Shares to try, from safe to cheap.  [default: {len(GRID)} from {GRID[0]:g} down]"
)
@click.option("--min-keep", type=int, default=1, show_default=True, metavar="N", help="Fewest tokens kept at any mass.")
@click.option("--max-keep", type=int, metavar="N", help="Most tokens kept at any mass.  [default: all]")
@click.option(
    "--search",
    metavar="LIST",
    help="Also export and compare artifacts of other blocks or scores: prune-at, score, or prune-at,score.",
)
@click.option("--name", default="tuned", show_default=True, metavar="NAME", help="What to call the point.")
@runtime_option
@precision_option
@device_option
@threads_option
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the split in two.")
@workspace_option
@json_option
@consent_options
def command(
    artifact: Path | None,
    images: Path | None,
    class_map: Path | None,
    check_images: Path | None,
    max_drop: float | None,
    max_disagreement: float | None,
    max_recall_drop: float | None,
    recall_at: int,
    confidence: float,
    families: tuple[str, ...],
    grid: str | None,
    min_keep: int,
    max_keep: int | None,
    search: str | None,
    name: str,
    runtime: str,
    precision: RunPrecision | None,
    device: str,
    threads: int | None,
    seed: int,
    workspace: Path,
    as_json: bool,
) -> None:
    """Find the cheapest operating point of an adaptive ARTIFACT that keeps to a limit with confidence.

    With no ARTIFACT, the adaptive one of the last export is tuned.

    Points are tried from safe to cheap on one half of the images, until one cannot be shown to keep to the limit; the
    one before it is checked on the other half, and becomes a named point of the artifact. Where there is no such point,
    dense is recommended and the exit code is 10.
    """
    options = TuneOptions(
        max_drop=max_drop,
        max_disagreement=max_disagreement,
        max_recall_drop=max_recall_drop,
        recall_at=recall_at,
        confidence=confidence,
        splits=SplitOptions(images, check_images, seed=seed, class_map=class_map),
        name=name,
        families=tuple(map(PointFamily, families)) or (PointFamily.MASS,),
        grid=GRID if grid is None else _shares(grid),
        min_keep=min_keep,
        max_keep=max_keep,
        search=() if search is None else _choices(search, Search, "--search"),
        runtime=runtime,
        precision=precision,
        threads=threads,
        device=device,
    )
    opened = _adaptive(workspace) if artifact is None else open_artifact(artifact)
    with live_progress() as report:
        result = tune(opened, options, report)
    _report(result, as_json, workspace)
    if result.outcome is not Outcome.TUNED:
        raise TargetMissed(result.message, result.hint)


def _choices(text: str, kind: type[Choice], option: str) -> tuple[Choice, ...]:
    try:
        return tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))
    except ValueError:
        raise InvalidArgument(f"{option} {text!r} is not known", f"known are {', '.join(kind)}") from None


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidArgument(f"--grid {text!r} is not a list of numbers", "give it as 0.99,0.95,0.9") from None


def _adaptive(root: Path) -> Artifact:
    for place in reversed(Workspace(root).last_export(_MAKE)):
        opened = open_artifact(place)
        if opened.manifest.form is Form.ADAPTIVE:
            return opened
    raise ArtifactError(
        f"the last export to {root} has no adaptive artifact, which is the one that points are of",
        f"run: {_MAKE}",
    )


def _report(result: TuneResult, as_json: bool, workspace: Path) -> None:
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), indent=2, default=str))
        return
    show_tables(*tables(result))
    if result.outcome is Outcome.TUNED:
        show("", result.message, *_usage(result, workspace))
    for note in result.notes:
        warn(note)
    if result.exported:
        progress(f"also exported, to keep or to delete: {', '.join(result.exported)}")


def _usage(result: TuneResult, workspace: Path) -> tuple[str, ...]:
    """Returns the commands that use the point; what is the default of commands is left out."""
    assert result.file is not None
    name, predict, bench = result.file.stem, "", ""
    if workspace != DEFAULT_WORKSPACE or not _is_last_export(result.artifact, workspace):
        predict, bench = f" --artifact {result.artifact}", f" {result.artifact}"
    return (
        f"written to {result.file}; use it with",
        f"    sait-deploy predict IMAGES{predict} --point {name}",
        f"    sait-deploy bench{bench} --point {name}",
    )


def _is_last_export(artifact: Path, workspace: Path) -> bool:
    try:
        return Workspace(workspace).last_export()[-1].resolve() == artifact.resolve()
    except (ArtifactError, IndexError):
        return False
