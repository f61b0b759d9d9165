"""``sait-deploy build-engine``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sait_deploy.artifacts.folder import Workspace, open_artifact
from sait_deploy.cli._command import Command
from sait_deploy.cli._options import artifacts_argument, json_option, workspace_option
from sait_deploy.cli._render import live_progress, progress, show_next, show_tables, workspace_words
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.inspect import built_as_dict
from sait_deploy.engine.options import (
    AttentionChoice,
    BatchRange,
    BuilderChoice,
    EngineOptions,
    FusionChoice,
    PluginChoice,
    Portability,
    parse_targets,
)
from sait_deploy.engine.tables import built_table
from sait_deploy.engine.trtexec import trtexec_commands
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import EnginePrecision, QuantizedType
from sait_deploy.reports.escape import plain


@click.command(
    cls=Command, example="sait-deploy build-engine --target sm89 --batch 1:8:32", renamed={"--artifacts": "--workspace"}
)
@artifacts_argument
@click.option(
    "--builder",
    type=click.Choice([choice.value for choice in BuilderChoice]),
    default=BuilderChoice.AUTO.value,
    show_default=True,
    help="auto: TensorRT where it and a GPU are there, else TensorRT for RTX.",
)
@click.option(
    "--precision",
    type=click.Choice([choice.value for choice in EnginePrecision]),
    default=EnginePrecision.FP16.value,
    show_default=True,
    help="Of matrix products and attention; LayerNorm and importance are fp32 in each.",
)
@click.option(
    "--quantized",
    type=click.Choice([choice.value for choice in QuantizedType]),
    default=QuantizedType.INT8.value,
    show_default=True,
    help="Numbers of an int8 artifact's quantised layers; fp8 from sm89 on.",
)
@click.option(
    "--target",
    metavar="LIST",
    help="GPU architectures for TensorRT for RTX, as in sm86,sm89.  [default: this GPU's, or sm86,sm89,sm120]",
)
@click.option("--batch", default="1:8:32", show_default=True, metavar="MIN:OPT:MAX", help="Images per request.")
@click.option("--builder-workspace", "workspace_gib", type=float, metavar="GIB", help="GPU memory a kernel may use.")
@click.option("--opt-level", type=int, metavar="0-5", help="How hard the builder tries.  [default: the builder's]")
@click.option("--timing-cache", type=click.Path(path_type=Path), metavar="FILE", help="Measured kernel times, kept.")
@click.option("--version-compatible", is_flag=True, help="Run on later versions of TensorRT too.")
@click.option("--hardware-compatible", is_flag=True, help="Run on other GPUs from Ampere on too.")
@click.option("--strip-weights", is_flag=True, help="Leave weights out; they are put in when the engine is loaded.")
@click.option("--no-plugin", is_flag=True, help="Select tokens with standard layers, not with a plugin.")
@click.option("--allow-unfused", is_flag=True, help="Build attention that has no fused kernel too.")
@click.option(
    "--attention",
    type=click.Choice([choice.value for choice in AttentionChoice]),
    default=AttentionChoice.PADDED.value,
    show_default=True,
    help="What a trunk attends on: images padded to the longest, or packed rows, of TensorRT from 11 on.",
)
@click.option("--print-trtexec", is_flag=True, help="Print the trtexec commands that load the engines.")
@workspace_option
@json_option
def command(
    artifacts: tuple[Path, ...],
    builder: str,
    precision: str,
    quantized: str,
    target: str | None,
    batch: str,
    workspace_gib: float | None,
    opt_level: int | None,
    timing_cache: Path | None,
    version_compatible: bool,
    hardware_compatible: bool,
    strip_weights: bool,
    no_plugin: bool,
    allow_unfused: bool,
    attention: str,
    print_trtexec: bool,
    workspace: Path,
    as_json: bool,
) -> None:
    """Turn artifacts into TensorRT engines, which are put into the artifacts' folders.

    With no ARTIFACT, what was exported last is built, with its baseline. An adaptive artifact becomes two engines, stem
    and trunk.
    """
    if print_trtexec and strip_weights:
        raise InvalidArgument("trtexec puts no weights into an engine of --strip-weights", "leave one of the two out")
    asked = {Portability.VERSIONS: version_compatible, Portability.HARDWARE: hardware_compatible}
    options = EngineOptions(
        builder=BuilderChoice(builder),
        precision=EnginePrecision(precision),
        targets=() if target is None else parse_targets(target),
        batch=BatchRange.parse(batch),
        workspace_gib=workspace_gib,
        opt_level=opt_level,
        timing_cache=timing_cache,
        portability=frozenset(kind for kind, wanted in asked.items() if wanted),
        strip_weights=strip_weights,
        plugin=PluginChoice.NEVER if no_plugin else PluginChoice.WHERE_POSSIBLE,
        quantized=QuantizedType(quantized),
        fusion=FusionChoice.ALLOWED_UNFUSED if allow_unfused else FusionChoice.REQUIRED,
        attention=AttentionChoice(attention),
    )
    opened = [open_artifact(path) for path in artifacts or _folder(workspace).last_export()]
    engines = []
    for artifact in opened:
        with live_progress() as report:
            engines.append(build_engine(artifact, options, report))
        progress(f"wrote {engines[-1].path}")
    if as_json:
        click.echo(json.dumps([built_as_dict(engine) for engine in engines], indent=2))
        return
    show_tables(built_table(engines))
    if print_trtexec:
        for line in (line for engine in engines for line in trtexec_commands(engine)):
            click.echo(plain(line))  # whole, as a table's width would break it
    show_next("bench", *artifacts, *workspace_words(workspace))


def _folder(workspace: Path) -> Workspace:
    """Returns the folder of the last export; trtexec's ``--workspace`` is a size, and so might the user's be."""
    try:
        float(str(workspace))
    except ValueError:
        return Workspace(workspace)
    if workspace.is_dir():
        return Workspace(workspace)
    raise InvalidArgument(
        f"--workspace {workspace} is a number, and --workspace is the folder of the last export",
        f"GiB for the builder are --builder-workspace {workspace}",
    )
