"""``sait-deploy build-engine``."""

from __future__ import annotations

from pathlib import Path

import click

from sait_deploy.cli.options import debug_option
from sait_deploy.errors import BuilderUnavailable


@click.command()
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT]...")
@debug_option
def command(artifacts: tuple[Path, ...]) -> None:
    """Turn artifacts into TensorRT engines: this version has no builder yet."""
    raise BuilderUnavailable(
        "this version of sait-deploy has no TensorRT builder yet; its ONNX artifacts run as they are"
    )
