"""``sait-deploy evaluate``."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sait_deploy import demo
from sait_deploy.artifacts.folder import Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form, WeightsSource
from sait_deploy.artifacts.points import mass_point, parse_mass, parse_point
from sait_deploy.cli import _completion
from sait_deploy.cli._command import Command
from sait_deploy.cli._model_options import (
    PREPROCESSING_FLAGS,
    load_named,
    model_options,
    preprocessing_choice,
    task_of,
    task_options,
    weights_source,
)
from sait_deploy.cli._options import (
    artifact_argument,
    class_map_option,
    consent_options,
    device_option,
    images_option,
    json_option,
    precision_option,
    reports_option,
    threads_option,
    workspace_option,
)
from sait_deploy.cli._outputs import check_outputs, write_outputs
from sait_deploy.cli._render import (
    images_words,
    live_progress,
    progress,
    show,
    show_json,
    show_next,
    show_notes,
    show_tables,
)
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.evaluation import report
from sait_deploy.evaluation.evaluate import check_for_artifact, check_for_model, evaluate
from sait_deploy.evaluation.options import ORACLE, EvaluateOptions
from sait_deploy.evaluation.oracle_report import EXPLAINED, oracle_tables
from sait_deploy.evaluation.results import Evaluation, to_json
from sait_deploy.reports.table import Severity
from sait_deploy.runtime.registry import RUNTIMES
from sait_deploy.tokens import Score, parse_density

if TYPE_CHECKING:
    from sait_deploy.artifacts.folder import Artifact
    from sait_deploy.images.preprocessing_choice import PreprocessingChoice
    from sait_deploy.models.registry import LoadedModel
    from sait_deploy.system.progress import Progress


_NONE: Final = "none"
_DEFAULTS: Final = EvaluateOptions()


@click.command(
    cls=Command,
    example="sait-deploy evaluate --images photos/ --mass 0.9 -o accuracy.html",
    renamed={"--artifact": "", "--batch-size": "--batch"},
)
@artifact_argument(required=False)
@model_options
@task_options
@images_option("Images, where known in subfolders of their classes.  [default: what comes with the toolkit]")
@class_map_option
@click.option(
    "--class-embeddings",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Classify by the nearest of these: .npz with embeddings [classes, D] and labels. Of a model that embeds.",
)
@click.option("--density", "densities", multiple=True, metavar="D", help="Share of patch tokens to keep; repeatable.")
@click.option("--mass", "masses", multiple=True, metavar="M", help="Share of importance to keep; repeatable.")
@click.option("--point", "points", multiple=True, metavar="NAME=M[,MIN[,MAX]]", help="A named point; repeatable.")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="D",
    help="Also keep as many tokens at random, and the least important ones, at this density; repeatable, or none.  "
    "[default: of a model that embeds, random tokens beside every point]",
)
@click.option(
    "--lower-resolution",
    "sizes",
    multiple=True,
    metavar="PX",
    help="Height at which the dense model runs as a rival; repeatable, or none.  [default: those of equal MACs]",
)
@click.option(
    "--oracle",
    is_flag=True,
    help="Find the fewest tokens that each image needs, and what the best choice for each could gain.",
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
@click.option(
    "--runtime",
    metavar="NAME",
    shell_complete=_completion.runtimes,
    help=f"What runs an artifact: one of {', '.join(RUNTIMES)}.",
)
@precision_option
@device_option
@threads_option
@click.option("--batch", type=int, default=_DEFAULTS.batch, show_default=True, metavar="N", help="Images at once.")
@click.option("--limit", type=int, metavar="N", help="Images at most, evenly spaced.  [default: all]")
@workspace_option
@reports_option("report")
@json_option
@consent_options
def command(
    artifact: Path | None,
    images: Path | None,
    workspace: Path,
    outputs: tuple[Path, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Measure accuracy over operating points of ARTIFACT, or of a model, against controls and rivals.

    A model is evaluated in torch, an artifact on its runtime. With neither it is the last export's adaptive artifact,
    or its pruned one; where nothing was exported, the demonstration model.

    With no --density, --mass and --point an artifact runs at its own points, and a model at densities 0.7, 0.5, 0.3 and
    0.2 and masses 0.9 and 0.8. Without labels, answers are compared with dense's.

    Of a model that embeds, images are retrieved by each other: recall against dense, and where they lie in subfolders
    of classes, recall between classes and k-NN accuracy.
    """
    options, choice = _options(given), preprocessing_choice(given)
    source = weights_source(given["weights"], given["pretrained"], given["random_weights"])
    check_outputs(Evaluation, outputs)
    model_named = given["model"] is not None or source is not WeightsSource.DEMO or given["imgsz"] is not None
    chosen = None if artifact is None and model_named else _artifact(artifact, workspace)
    if chosen is not None:
        _check_no_model(given)
        check_for_artifact(options)
        progress(f"evaluating {chosen.path.name}")
    else:
        check_for_model(options)
    with live_progress() as report_progress:
        what = chosen or _model(given, source, report_progress, choice)
        evaluation = evaluate(what, images, options, report_progress)
    _show(evaluation, as_json)
    write_outputs(evaluation, outputs)
    if not as_json:
        _show_next(chosen, evaluation, images, given)


def _show_next(evaluated: Artifact | None, evaluation: Evaluation, images: Path | None, given: dict[str, Any]) -> None:
    """An adaptive artifact can be tuned, another one be used, and a model be exported."""
    if evaluated is not None and evaluated.manifest.form is Form.ADAPTIVE:
        right = evaluated.manifest.model.classes and evaluation.labelled
        limit = "--max-drop" if right else "--max-disagreement"
        show_next("tune", evaluated.path, *images_words(images), limit, "0.5")
    elif evaluated is not None:
        show_next("predict", "IMAGES", "--artifact", evaluated.path)
    else:
        names = ("model", "weights")
        named = [word for name in names if given[name] is not None for word in (f"--{name}", given[name])]
        show_next("export", *named, *(["--pretrained"] if given["pretrained"] else []), "--mass", "0.9")


def _options(given: dict[str, Any]) -> EvaluateOptions:
    task, head = task_of(given)
    return EvaluateOptions(
        densities=tuple(map(parse_density, given["densities"])),
        points=(*(mass_point(parse_mass(text)) for text in given["masses"]), *map(parse_point, given["points"])),
        controls=_controls(given["controls"]),
        lower_resolutions=_sizes(given["sizes"]),
        bench_report=given["bench"],
        bench_runtime=given["bench_runtime"],
        bench_batch=given["bench_batch"],
        batch=given["batch"],
        limit=given["limit"],
        score=None if given["score"] is None else Score(given["score"]),
        prune_at=given["prune_at"],
        runtime=given["runtime"],
        precision=given["precision"],
        weights=given["weights"],
        threads=given["threads"],
        device=given["device"],
        class_map=given["class_map"],
        oracle=ORACLE if given["oracle"] else (),
        class_embeddings=given["class_embeddings"],
        task=task,
        head=head,
    )


def _controls(texts: tuple[str, ...]) -> tuple[Decimal, ...] | None:
    if not texts:
        return None
    return () if texts == (_NONE,) else tuple(map(parse_density, texts))


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


def _check_no_model(given: dict[str, Any]) -> None:
    """Refuses what names a model beside an artifact, but for a weights file: the artifact's may have moved."""
    names = {"--model": "model", "--pretrained": "pretrained", "--random-weights": "random_weights", "--imgsz": "imgsz"}
    names["--global-pool"] = "global_pool"
    names |= PREPROCESSING_FLAGS
    for flag, name in names.items():
        if given[name] not in (None, False):
            raise InvalidArgument(
                f"{flag} cannot be chosen for an artifact, which has its own",
                "leave it out, or evaluate a model with --model",
            )


def _artifact(named: Path | None, workspace: Path) -> Artifact | None:
    """Opens the artifact named, or of the last export an adaptive one, else a pruned one; None where there is none."""
    if named is not None:
        return open_artifact(named)
    try:
        places = Workspace(workspace).last_export()
    except ArtifactError:
        return None
    opened = [open_artifact(place) for place in places]
    pruned = (one for form in (Form.ADAPTIVE, Form.DENSITY) for one in opened if one.manifest.form is form)
    return next(pruned, None)


def _model(given: dict[str, Any], source: WeightsSource, report: Progress, choice: PreprocessingChoice) -> LoadedModel:
    if given["model"] is None:
        progress(f"no artifact or --model: evaluating the demonstration model, {demo.NAME}")
    import torch  # noqa: F401 - of all that models need, what to name first where none of it is installed

    return load_named(given, given["model"] or demo.NAME, source, report, choice)


def _show(evaluation: Evaluation, as_json: bool) -> None:
    notes = list(evaluation.notes)
    if as_json:
        show_json(to_json(evaluation))
        notes = [note for note in notes if note.severity is Severity.WARNING]
    else:
        tables = (report.figures_table(evaluation), *oracle_tables(evaluation))
        show_tables(*tables, *report.brief_strata_tables(evaluation))
        lines = report.comparison_lines(evaluation)
        show(*([""] if lines else []), *lines)
        show(*(["", EXPLAINED] if evaluation.oracle is not None else []))
    show_notes(notes)
