"""``sait-deploy quantize``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sait_deploy.cli._command import Command
from sait_deploy.cli._options import (
    artifacts_argument,
    class_map_option,
    images_option,
    json_option,
    threads_option,
    workspace_option,
)
from sait_deploy.cli._render import live_progress, show_next, show_notes, show_tables

if TYPE_CHECKING:
    from sait_deploy.artifacts.folder import Artifact


@click.command(cls=Command, example="sait-deploy quantize --images photos/")
@artifacts_argument
@images_option("Images to calibrate and compare on; subfolders are classes.  [default: the demonstration model's]")
@class_map_option
@click.option(
    "--exclude",
    default="auto",
    show_default=True,
    metavar="LIST",
    help="Linear layers that stay float: auto, none, or names such as blocks.0.*,blocks.3.mlp.fc2.",
)
@click.option(
    "--min-agreement",
    type=float,
    default=99.0,
    show_default=True,
    metavar="P",
    help="Percent of held-out images that must get the same top-1 as before; else nothing is written.",
)
@threads_option
@click.option("--overwrite", is_flag=True, help="Replace int8 artifacts that are already there.")
@workspace_option
@json_option
def command(
    artifacts: tuple[Path, ...],
    images: Path | None,
    class_map: Path | None,
    exclude: str,
    min_agreement: float,
    threads: int | None,
    overwrite: bool,
    workspace: Path,
    as_json: bool,
) -> None:
    """Turn artifacts, and their dense baseline, into int8 ones that answer as they do.

    Linear layers run in int8, everything else stays float. With no ARTIFACT, those of the last export are quantised.
    They become the last export.
    """
    from sait_deploy.artifacts.folder import Workspace, open_artifact
    from sait_deploy.artifacts.precisions import float_of
    from sait_deploy.quantization.options import QuantizeOptions, parse_exclude
    from sait_deploy.quantization.stage import quantize

    how, names = parse_exclude(exclude)
    options = QuantizeOptions(
        images=images,
        class_map=class_map,
        exclude=how,
        keep_float=names,
        min_agreement=min_agreement,
        threads=threads,
        overwrite=overwrite,
    )
    # What quantize itself exported last is made again from the float artifacts.
    last = [] if artifacts else [float_of(open_artifact(path)).path for path in Workspace(workspace).last_export()]
    with live_progress() as report:
        made = quantize(artifacts or last, options, report)
    _report(made, as_json)
    if not as_json:
        show_next("bench", *(artifact.path for artifact in made))


def _report(made: list[Artifact], as_json: bool) -> None:
    from sait_deploy.artifacts.manifest_document import as_dict
    from sait_deploy.quantization.tables import quantize_notes, quantized_table

    notes = quantize_notes([artifact.manifest for artifact in made])
    if as_json:
        found = [{"path": str(artifact.path), **as_dict(artifact.manifest)} for artifact in made]
        click.echo(json.dumps({"artifacts": found, "notes": [note.text for note in notes]}, indent=2))
    else:
        show_tables(quantized_table(made))
    show_notes(notes)
