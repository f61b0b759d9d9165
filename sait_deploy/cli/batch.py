"""``sait-deploy batch``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from sait_deploy.artifacts.folder import Workspace
from sait_deploy.artifacts.points import PointChoice, parse_mass
from sait_deploy.batch.job import run_batch
from sait_deploy.batch.options import SHARD_IMAGES, BatchOptions
from sait_deploy.cli._command import Command
from sait_deploy.cli._options import (
    artifact_option,
    consent_options,
    device_option,
    json_option,
    point_options,
    precision_option,
    replicas_option,
    runtime_option,
    threads_option,
    token_budget_option,
    top_option,
    workspace_option,
)
from sait_deploy.cli._render import counted, live_progress, show, warn
from sait_deploy.engine.trust import granted
from sait_deploy.reports.escape import plain
from sait_deploy.serving.model import STEM_IMAGES


@click.command(cls=Command, example="sait-deploy batch photos/ -o labels/ --batch 32")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder to write Parquet files to, or its URL.")
@artifact_option
@point_options
@runtime_option
@precision_option
@device_option
@threads_option
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=STEM_IMAGES,
    show_default=True,
    metavar="N",
    help="Images of a batch before the seam.",
)
@token_budget_option("those of --batch whole images")
@replicas_option("Processes that compute.")
@click.option(
    "--shard",
    type=click.IntRange(min=1),
    default=SHARD_IMAGES,
    show_default=True,
    metavar="N",
    help="Images of a file written; of Parquet, whole row groups of at least so many.",
)
@top_option
@click.option("--image-column", metavar="NAME", help="Of Parquet files.  [default: image, else the only one of bytes]")
@click.option("--address", metavar="ADDRESS", help="Join this Ray cluster.  [default: a Ray of its own, on loopback]")
@workspace_option
@json_option
@consent_options
def command(**given: Any) -> None:
    """Label or embed all images of INPUT: a folder, Parquet, or the URL of either that fsspec knows.

    A row holds the image's name, its classes or its embedding, the tokens kept, and the error of an image that cannot
    be read. The same command goes on where it was stopped.
    """
    mass = None if given["mass"] is None else parse_mass(given["mass"])
    options = BatchOptions(
        source=given["source"],
        output=given["output"],
        artifact=given["artifact"] or Workspace(given["workspace"]).last_export()[-1],
        choice=PointChoice(given["point"], mass, given["min_keep"], given["max_keep"]),
        runtime=given["runtime"],
        precision=given["precision"],
        device=given["device"],
        threads=given["threads"],
        batch=given["batch"],
        token_budget=given["token_budget"],
        replicas=given["replicas"],
        shard=given["shard"],
        top=given["top"],
        image_column=given["image_column"],
        address=given["address"],
        consent=granted(),
    )
    with live_progress() as report:
        found = run_batch(options, report)
    if given["as_json"]:
        click.echo(json.dumps(asdict(found)))
    else:
        place = f"{counted(found.images, 'image')} in {counted(found.shards, 'file')} in {given['output']}"
        show(f"{place}, {found.mean_kept:.1f} tokens kept on average")
        reading = f"import pyarrow.parquet as p; print(p.read_table({given['output']!r}))"
        click.echo(plain(f'next: python -c "{reading}"'), err=True)  # whole, to be copied
    if found.broken:
        warn(f"{found.broken} of {found.images} images have no answer: column error says why")
