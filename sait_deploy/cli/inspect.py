"""``sait-deploy inspect``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from sait_deploy.artifacts.folder import Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form
from sait_deploy.cli._command import Command
from sait_deploy.cli._options import (
    artifacts_argument,
    consent_options,
    device_option,
    images_option,
    json_option,
    runtime_option,
    workspace_option,
)
from sait_deploy.cli._render import live_progress, show_next, show_tables, workspace_words
from sait_deploy.engine.tables import engines_table
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporting.inspect import Inspection, compare_with_torch, inspect
from sait_deploy.exporting.tables import inspection_table, points_table
from sait_deploy.reports.table import Table
from sait_deploy.runtime.registry import ONNXRUNTIME, is_default_device


@click.command(cls=Command, example="sait-deploy inspect artifacts/sait_demo_digits-density0.6 --check")
@artifacts_argument
@click.option("--check", "compare", is_flag=True, help="Compare with the torch model of the same weights again.")
@images_option("Images for --check.  [default: shipped ones]")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights for --check, where the manifest's are gone.",
)
@runtime_option
@device_option
@workspace_option
@json_option
@consent_options
def command(
    artifacts: tuple[Path, ...],
    compare: bool,
    images: Path | None,
    weights: Path | None,
    runtime: str,
    device: str,
    workspace: Path,
    as_json: bool,
) -> None:
    """Show what artifacts are: manifest, graph, multiply-accumulates.

    With no ARTIFACT, what was exported last is shown.
    """
    elsewhere = runtime != ONNXRUNTIME or not is_default_device(device)
    if not compare and (images is not None or weights is not None or elsewhere):
        raise InvalidArgument(
            "--images, --weights, --runtime and --device are for comparing with torch", "give --check as well"
        )
    found = []
    with live_progress(keep_lines=compare) as progress:
        for path in artifacts or Workspace(workspace).last_export():
            artifact = open_artifact(path)
            progress(f"{artifact.path.name}: {'comparing with torch' if compare else 'reading'}")
            parity = compare_with_torch(artifact, images, weights, runtime, device) if compare else None
            found.append(inspect(artifact, parity))
    if as_json:
        click.echo(json.dumps([inspection.as_dict() for inspection in found], indent=2))
    else:
        show_tables(*(table for inspection in found for table in _tables(inspection)))
        again = (*artifacts, *workspace_words(workspace))
        show_next(*(("bench", *again) if compare else ("inspect", "--check", *again)))
    for inspection in found:
        for error in (inspection.refusal, *(engine.damage for engine in inspection.engines)):
            if error is not None:
                raise error


def _tables(found: Inspection) -> Iterator[Table]:
    yield inspection_table(found)
    if found.artifact.manifest.form is Form.ADAPTIVE:
        yield points_table(found.artifact.manifest)
    if found.engines:
        yield engines_table(found.engines)
