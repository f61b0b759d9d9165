"""``sait-deploy export``."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sait_deploy import demo
from sait_deploy.artifacts.files import check_place
from sait_deploy.artifacts.manifest import EXPORTED_PRECISIONS, Form, Outputs, Precision
from sait_deploy.artifacts.manifest_document import as_dict
from sait_deploy.artifacts.points import (
    PointRequest,
    mass_point,
    parse_mass,
    parse_point,
    parse_threshold,
    threshold_point,
)
from sait_deploy.cli._command import Command
from sait_deploy.cli._model_options import (
    load_named,
    model_options,
    preprocessing_choice,
    task_of,
    task_options,
    tower_choice,
    tower_options,
    weights_source,
)
from sait_deploy.cli._options import class_map_option, images_option, json_option
from sait_deploy.cli._render import live_progress, progress, show_next, show_notes, show_tables, workspace_words
from sait_deploy.errors import InvalidArgument
from sait_deploy.tokens import Score, parse_density

if TYPE_CHECKING:
    from sait_deploy.artifacts.folder import Artifact
    from sait_deploy.models.weights import SparseTraining

DEFAULT_DENSITY = "0.6"
LAST_BLOCK = "last"
"""What --features means without blocks."""


@click.command(
    cls=Command,
    example="sait-deploy export --model deit_small_patch16_224 --pretrained --mass 0.95",
    renamed={"--dtype": "--precision"},
)
@model_options
@task_options
@tower_options
@click.option(
    "--density",
    "densities",
    multiple=True,
    metavar="D",
    help="Share of patch tokens to keep, in (0, 1]; repeatable.  [default: 0.6]",
)
@click.option(
    "--mass",
    "masses",
    multiple=True,
    metavar="M",
    help="Export the adaptive form: each image keeps the tokens that reach this share of importance, such as 0.95. "
    "Repeatable: named points of one file, the first its default.",
)
@click.option(
    "--point",
    "points",
    multiple=True,
    metavar="NAME=M[,MIN[,MAX]]",
    help="A further named point of the adaptive file; repeatable.",
)
@click.option(
    "--threshold",
    metavar="T",
    help="Export the adaptive form: each image keeps the tokens that hold at least T times uniform importance, such as "
    "1.5; with --mass or --point, those of them that reach the mass.",
)
@click.option("--min-keep", type=int, metavar="N", help="Patch tokens each image keeps at least.  [default: 1]")
@click.option(
    "--max-keep", type=int, metavar="N", help="Patch tokens each image keeps at most: the worst case.  [default: all]"
)
@click.option(
    "--features",
    is_flag=False,
    flag_value=LAST_BLOCK,
    metavar="[I,J,…]",
    help="Also return the last block's tokens at full resolution, or those of these blocks, counted from 0, such as "
    "3,5,8,11, and which were kept.",
)
@click.option("--dense", "dense_only", is_flag=True, help="Only the dense baseline, which is always included.")
@click.option(
    "--score",
    type=click.Choice([choice.value for choice in Score]),
    help="How importance is read off the attention.  [default: as trained, else mean]",
)
@click.option(
    "--prune-at", type=int, metavar="I", help="Block to prune in, from 0.  [default: as trained, else depth // 4]"
)
@click.option(
    "--precision",
    type=click.Choice([choice.value for choice in EXPORTED_PRECISIONS]),
    default=Precision.FP32.value,
    show_default=True,
    help="Element type of the weights.",
)
@click.option(
    "--opset", type=int, default=20, show_default=True, metavar="N", help="Version of the standard ONNX operators."
)
@click.option(
    "--batch",
    type=int,
    metavar="N",
    help="Images of every request, fixed in the graph, for runtimes that want that.  [default: any number]",
)
@click.option(
    "--inline", is_flag=True, help="Write the selection as standard operators, without model-local functions."
)
@images_option("Images to check parity on.  [default: shipped ones]")
@class_map_option
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="Class names, one a line.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("artifacts"),
    show_default=True,
    help="Folder for the artifacts.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace artifacts that are already there, once the new ones are whole."
)
@json_option
def command(model: str | None, as_json: bool, **given: Any) -> None:
    """Export a vision transformer to ONNX at token densities, or adaptive, with its dense baseline.

    With --task embed, and where a model has no head, the graph's output is an embedding of unit length; with --task
    tokens the kept tokens of an image tower, for a language model.

    A density keeps the same share of every image's tokens. The adaptive form (--mass, --point, --threshold) keeps as
    many as each image needs, and one file serves every operating point.

    Each artifact is a folder with model.onnx, manifest.json and golden.npz, checked against torch before it is written.
    """
    densities, requests, threshold = _asked(given)
    outputs, feature_blocks = _features(given["features"])
    task, head = task_of(given)
    choice = preprocessing_choice(given)
    source = weights_source(given["weights"], given["pretrained"], given["random_weights"])
    if model is None:
        progress(f"no --model: exporting the demonstration model, {demo.NAME}")
    import torch  # noqa: F401 - of all that exporting needs, what to name first where none of it is installed

    from sait_deploy.exporters.finish import OperatorForm
    from sait_deploy.exporting.plan import ExportOptions
    from sait_deploy.exporting.stage import export_model

    options = ExportOptions(
        densities=densities,
        points=requests,
        threshold=threshold,
        score=None if given["score"] is None else Score(given["score"]),
        prune_at=given["prune_at"],
        precision=Precision(given["precision"]),
        opset=given["opset"],
        operators=OperatorForm.INLINE if given["inline"] else OperatorForm.FUNCTION,
        outputs=outputs,
        feature_blocks=feature_blocks,
        images=given["images"],
        labels=given["labels"],
        class_map=given["class_map"],
        output=given["output"],
        overwrite=given["overwrite"],
        task=task,
        head=head,
        tower=tower_choice(given),
        batch=given["batch"],
    )
    check_place(options.output)
    with live_progress() as report:
        report(f"loading {model or demo.NAME}")
        loaded = load_named(given, model or demo.NAME, source, report, choice)
        artifacts = export_model(loaded, options, report)
    _report(artifacts, loaded.training, as_json)
    if not as_json:
        needs_images = any(one.manifest.form is Form.ADAPTIVE for one in artifacts) and loaded.info.name != demo.NAME
        images = ("--images", "IMAGES") if needs_images else ()
        show_next("bench", *workspace_words(options.output), *images)


def _report(artifacts: list[Artifact], training: SparseTraining | None, as_json: bool) -> None:
    from sait_deploy.exporting.tables import accuracy_line, export_notes, exported_tables

    notes = export_notes([artifact.manifest for artifact in artifacts], training)
    if as_json:
        made = [{"path": str(a.path), **as_dict(a.manifest)} for a in artifacts]
        click.echo(json.dumps({"artifacts": made, "warnings": [note.text for note in notes]}, indent=2))
    else:
        show_tables(*exported_tables(artifacts))
        line = accuracy_line([artifact.manifest for artifact in artifacts])
        if line is not None:
            progress(f"right: {line}")
    show_notes(notes)


def _asked(given: dict[str, Any]) -> tuple[tuple[Decimal, ...], tuple[PointRequest, ...], float | None]:
    """Returns densities, points and the threshold to export at."""
    densities, masses, points = given["densities"], given["masses"], given["points"]
    threshold = None if given["threshold"] is None else parse_threshold(given["threshold"])
    named = densities or masses or points or threshold is not None
    if given["dense_only"] and named:
        raise InvalidArgument(
            "--dense asks for the baseline alone, --density, --mass, --point and --threshold for more",
            "leave one of them out",
        )
    if not (named or given["dense_only"]):
        densities = (DEFAULT_DENSITY,)
    requests = _points(masses, points, threshold, given["min_keep"], given["max_keep"])
    return tuple(map(parse_density, densities)), requests, threshold


def _points(
    masses: tuple[str, ...],
    points: tuple[str, ...],
    threshold: float | None,
    min_keep: int | None,
    max_keep: int | None,
) -> tuple[PointRequest, ...]:
    if (min_keep is not None or max_keep is not None) and not (masses or points or threshold is not None):
        raise InvalidArgument(
            "--min-keep and --max-keep limit what --mass, --point and --threshold keep", "give --mass as well"
        )
    least = 1 if min_keep is None else min_keep
    if threshold is not None and not (masses or points):
        return (threshold_point(threshold, least, max_keep),)
    by_mass = [mass_point(parse_mass(text), least, max_keep) for text in masses]
    return (*by_mass, *(parse_point(text, least, max_keep) for text in points))


def _features(text: str | None) -> tuple[Outputs, tuple[int, ...]]:
    """Returns whether the last block's tokens are asked for, and the blocks that are asked for by number."""
    if text is None or text.lower() in ("", "false"):  # a file of options says so of what it leaves out
        return Outputs.LOGITS, ()
    if text.lower() in (LAST_BLOCK, "true"):
        return Outputs.LOGITS_AND_FEATURES, ()
    try:
        return Outputs.LOGITS, tuple(map(int, text.split(",")))
    except ValueError:
        raise InvalidArgument(
            f"--features {text!r} is no list of blocks",
            "give numbers from 0, such as --features 3,5,8,11, or none for the last block",
        ) from None
