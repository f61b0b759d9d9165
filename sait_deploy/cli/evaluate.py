"""``sait-deploy evaluate``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sait_deploy import demo
from sait_deploy.artifacts.files import check_writable, write_whole
from sait_deploy.artifacts.folder import Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form, ModelInfo, WeightsSource
from sait_deploy.artifacts.points import mass_point, parse_mass, parse_point
from sait_deploy.cli._options import (
    debug_option,
    json_option,
    model_options,
    threads_option,
    weights_source,
    workspace_option,
)
from sait_deploy.cli._render import progress, show, show_notes, show_tables
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.evaluation import report
from sait_deploy.evaluation.evaluate import evaluate_artifact, evaluate_model
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.plot import accuracy_plot
from sait_deploy.evaluation.results import Evaluation, to_json
from sait_deploy.images.dataset import Dataset, evaluation_dataset, folder_dataset
from sait_deploy.reports.drawing import require_matplotlib
from sait_deploy.reports.table import Severity
from sait_deploy.runtime.registry import ONNXRUNTIME, RUNTIMES, find_runtime
from sait_deploy.tokens import Score, parse_density

if TYPE_CHECKING:
    from sait_deploy.artifacts.folder import Artifact

DENSITIES: Final = (Decimal("0.7"), Decimal("0.5"), Decimal("0.3"), Decimal("0.2"))
"""What a model is evaluated at where neither densities nor points are named."""

MASSES: Final = (0.9, 0.8)
"""Likewise."""

_NONE: Final = "none"
_WRITERS: Final = {".json": to_json, ".md": report.to_markdown, ".svg": accuracy_plot}
_DEFAULTS: Final = EvaluateOptions()


@click.command()
@click.option("--artifact", type=click.Path(path_type=Path), metavar="DIR", help="Evaluate an exported artifact.")
@model_options
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Images, where known in subfolders of their classes.  [default: what comes with the toolkit]",
)
@click.option("--density", "densities", multiple=True, metavar="D", help="Share of patch tokens to keep; repeatable.")
@click.option("--mass", "masses", multiple=True, metavar="M", help="Share of importance to keep; repeatable.")
@click.option("--point", "points", multiple=True, metavar="NAME=M[,MIN[,MAX]]", help="A named point; repeatable.")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="D",
    help="Also keep as many tokens at random, and the least important ones, at this density; repeatable.",
)
@click.option(
    "--lower-resolution",
    "sizes",
    multiple=True,
    metavar="PX",
    help="Height at which the dense model runs as a rival; repeatable, or none.  [default: those of equal MACs]",
)
@click.option(
    "--bench",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A benchmark's JSON report: compare masses with densities of equal time, too.",
)
@click.option("--bench-runtime", metavar="NAME", help="Whose times in it.  [default: the runtime that answers]")
@click.option("--bench-batch", type=int, metavar="N", help="Images per request there.  [default: the largest]")
@click.option(
    "--score",
    type=click.Choice([choice.value for choice in Score]),
    help="How importance is read off the attention.  [default: as trained, else mean]",
)
@click.option(
    "--prune-at", type=int, metavar="I", help="Block to prune in, from 0.  [default: as trained, else depth // 4]"
)
@click.option("--runtime", metavar="NAME", help=f"What runs an artifact: one of {', '.join(RUNTIMES)}.")
@click.option(
    "--device",
    default=_DEFAULTS.device,
    show_default=True,
    metavar="NAME",
    help="Where torch runs; an artifact runs where --runtime does.",
)
@threads_option
@click.option("--batch-size", type=int, default=_DEFAULTS.batch, show_default=True, metavar="N", help="Images at once.")
@click.option("--limit", type=int, metavar="N", help="Images at most, evenly spaced.  [default: all]")
@workspace_option
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report: .json, .md or .svg; repeatable.",
)
@json_option
@debug_option
def command(
    artifact: Path | None,
    images: Path | None,
    runtime: str | None,
    workspace: Path,
    outputs: tuple[Path, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Measure accuracy over operating points, against controls and rivals.

    A model is evaluated in torch, an artifact on its runtime. With neither it is the last export's adaptive artifact,
    or its pruned one; where nothing was exported, the demonstration model.

    With no --density, --mass and --point an artifact runs at its own points, and a model at densities 0.7, 0.5, 0.3 and
    0.2 and masses 0.9 and 0.8. Without labels, answers are held against dense's.
    """
    options, named = _options(given), _Named.of(given)
    if runtime is not None:
        find_runtime(runtime)
    for output in outputs:
        if output.suffix.lower() not in _WRITERS:
            raise InvalidArgument(f"report {output} has no known ending", f"use one of {', '.join(_WRITERS)}")
        if output.suffix.lower() == ".svg":
            require_matplotlib()
    for output in outputs:
        check_writable(output)
    chosen = None if artifact is None and named.model_is_meant else _artifact(artifact, workspace)
    if chosen is None:
        evaluation = _of_model(named, runtime, images, options)
    else:
        evaluation = _of_artifact(chosen, named, runtime, images, options)
    _show(evaluation, as_json)
    for output in outputs:
        write_whole(output, _WRITERS[output.suffix.lower()](evaluation).encode())
        progress(f"wrote {output}")


def _options(given: dict[str, Any]) -> EvaluateOptions:
    return EvaluateOptions(
        densities=tuple(map(parse_density, given["densities"])),
        points=(*(mass_point(parse_mass(text)) for text in given["masses"]), *map(parse_point, given["points"])),
        controls=tuple(map(parse_density, given["controls"])),
        lower_resolutions=_sizes(given["sizes"]),
        bench_report=given["bench"],
        bench_runtime=given["bench_runtime"],
        bench_batch=given["bench_batch"],
        batch=given["batch_size"],
        limit=given["limit"],
        threads=given["threads"],
        device=given["device"],
    )


@dataclass(frozen=True, slots=True)
class _Named:
    """What names a model, and how it is to be pruned."""

    model: str | None
    weights: Path | None
    source: WeightsSource
    image_size: int | None
    score: Score | None
    prune_at: int | None

    @classmethod
    def of(cls, given: dict[str, Any]) -> _Named:
        """Reads it off the options of the command."""
        source = weights_source(given["weights"], given["pretrained"], given["random_weights"])
        score = None if given["score"] is None else Score(given["score"])
        return cls(given["model"], given["weights"], source, given["imgsz"], score, given["prune_at"])

    @property
    def model_is_meant(self) -> bool:
        """Whether a model was named, and so no artifact is looked for."""
        return self.model is not None or self.source is not WeightsSource.DEMO or self.image_size is not None

    def check_artifact(self) -> None:
        """Refuses what an artifact has fixed; its weights may have moved."""
        given = {
            "--model": self.model is not None,
            "--pretrained": self.source is WeightsSource.PRETRAINED,
            "--random-weights": self.source is WeightsSource.RANDOM,
            "--imgsz": self.image_size is not None,
            "--score": self.score is not None,
            "--prune-at": self.prune_at is not None,
        }
        wrong = [flag for flag, is_given in given.items() if is_given]
        if wrong:
            raise InvalidArgument(
                f"{wrong[0]} cannot be chosen for an artifact, which has its own",
                "leave it out, or evaluate a model with --model",
            )


def _sizes(texts: tuple[str, ...]) -> tuple[int, ...] | None:
    if not texts:
        return None
    if texts == (_NONE,):
        return ()
    try:
        return tuple(map(int, texts))
    except ValueError:
        raise InvalidArgument(
            f"--lower-resolution {' '.join(texts)} is no height in pixels", f"give one such as 160, or {_NONE}"
        ) from None


def _artifact(named: Path | None, workspace: Path) -> Artifact | None:
    """Opens the artifact named, or of the last export an adaptive one, else a pruned one; None where there is none."""
    if named is not None:
        return open_artifact(named)
    try:
        places = Workspace(workspace).last_export()
    except ArtifactError:
        return None
    opened = [open_artifact(place) for place in places]
    for form in (Form.ADAPTIVE, Form.DENSITY):
        for artifact in opened:
            if artifact.manifest.form is form:
                return artifact
    return None


def _of_model(named: _Named, runtime: str | None, images: Path | None, options: EvaluateOptions) -> Evaluation:
    if runtime is not None and not find_runtime(runtime).from_weights:
        raise InvalidArgument(
            f"--runtime {runtime} runs artifacts, and a model is evaluated in torch",
            "leave it out, or export the model and give --artifact",
        )
    if named.model is None:
        progress(f"no --model or --artifact: evaluating the demonstration model, {demo.NAME}")
    import torch  # noqa: F401 - of all that models need, what to name first where none of it is installed

    from sait_deploy.models.registry import WeightsRequest, load_model

    loaded = load_model(named.model or demo.NAME, WeightsRequest(named.source, named.weights), named.image_size)
    if not (options.densities or options.points):
        options = dataclasses.replace(options, densities=DENSITIES, points=tuple(map(mass_point, MASSES)))
    return evaluate_model(loaded, named.score, named.prune_at, _dataset(loaded.info, images), options, progress)


def _of_artifact(
    artifact: Artifact, named: _Named, runtime: str | None, images: Path | None, options: EvaluateOptions
) -> Evaluation:
    named.check_artifact()
    progress(f"evaluating {artifact.path.name}")
    dataset = _dataset(artifact.manifest.model, images)
    chosen = runtime or ONNXRUNTIME
    return evaluate_artifact(artifact, chosen, dataset, options, progress, named.weights)


def _dataset(model: ModelInfo, images: Path | None) -> Dataset:
    return evaluation_dataset(model.name) if images is None else folder_dataset(images, model.labels, model.classes)


def _show(evaluation: Evaluation, as_json: bool) -> None:
    notes = report.notes(evaluation)
    if as_json:
        click.echo(to_json(evaluation), nl=False)
        notes = [note for note in notes if note.severity is Severity.WARNING]
    else:
        show_tables(report.figures_table(evaluation), *report.brief_strata_tables(evaluation))
        show(*report.comparison_lines(evaluation))
    show_notes(notes)
