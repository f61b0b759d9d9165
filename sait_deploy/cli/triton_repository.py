"""``sait-deploy triton-repository``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sait_deploy.cli._command import Command
from sait_deploy.cli._options import artifact_argument, consent_options, json_option, token_budget_option
from sait_deploy.cli._render import progress, show
from sait_deploy.triton_repository.options import MAX_BATCH, Backend, RepositoryOptions
from sait_deploy.triton_repository.stage import write_repository

_BACKENDS = "onnxruntime: the file as it is; python: cut at its seam, in batches of tokens; tensorrt: its engine."


@click.command(
    cls=Command,
    example="sait-deploy triton-repository artifacts/my_model-adaptive -o models/",
    renamed={"--max-batch": "--batch"},
)
@artifact_argument(required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The repository.")
@click.option(
    "--backend",
    type=click.Choice([choice.value for choice in Backend]),
    default=Backend.ONNXRUNTIME.value,
    show_default=True,
    help=_BACKENDS,
)
@click.option("--point", metavar="NAME", help="Point of requests that bring no mass.  [default: the artifact's first]")
@click.option("--name", metavar="NAME", help="What clients call the model.  [default: the artifact's folder]")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Images computed together at most.  [default: {MAX_BATCH}; the engine's]",
)
@token_budget_option("with --backend python those of eight whole images")
@json_option
@consent_options
def command(**given: Any) -> None:
    """Make ARTIFACT a model in a repository of Triton Inference Server, with warm-up, labels and metadata."""
    options = RepositoryOptions(
        given["artifact"],
        given["output"],
        Backend(given["backend"]),
        given["point"],
        given["name"],
        given["batch"],
        given["token_budget"],
    )
    *parts, model = write_repository(options)
    if given["as_json"]:
        click.echo(json.dumps({"model": model.name, "parts": [part.name for part in parts]}))
        return
    for part in parts:
        progress(f"{part.name} is a part that clients do not ask")
    if options.backend is Backend.ONNXRUNTIME:
        progress("requests bring mass and keep_limits of an adaptive artifact: its points are in the parameters")
    show(f"model {model.name} is in {options.output}: tritonserver --model-repository={options.output.resolve()}")
