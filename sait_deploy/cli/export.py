"""``sait-deploy export``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sait_deploy import demo
from sait_deploy.cli.options import debug_option, json_option
from sait_deploy.cli.render import progress, show, table, warn
from sait_deploy.errors import InvalidArgument
from sait_deploy.manifest import AccuracyStatus, Manifest, Precision, WeightsSource
from sait_deploy.schedule import Score, parse_density

if TYPE_CHECKING:
    from sait_deploy.artifact import Artifact

DEFAULT_DENSITY = "0.6"


@click.command()
@click.option("--model", default=None, metavar="NAME", help="A timm name.  [default: the demonstration model]")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file: safetensors or a torch checkpoint.")
@click.option("--pretrained", is_flag=True, help="timm's own weights, downloaded.")
@click.option("--random-weights", is_flag=True, help="Random weights: for measuring speed only.")
@click.option(
    "--density",
    "densities",
    multiple=True,
    metavar="D",
    help="Share of patch tokens to keep, in (0, 1]; repeatable.  [default: 0.6]",
)
@click.option("--dense", "dense_only", is_flag=True, help="Only the dense baseline, which is always included.")
@click.option(
    "--score",
    type=click.Choice([choice.value for choice in Score]),
    default=Score.MEAN.value,
    show_default=True,
    help="How importance is read off the attention.",
)
@click.option("--prune-at", type=int, metavar="I", help="Block to prune in, from 0.  [default: depth // 4]")
@click.option(
    "--imgsz", type=click.IntRange(min=1), metavar="N", help="Side of the input in pixels.  [default: the model's]"
)
@click.option(
    "--dtype",
    type=click.Choice([choice.value for choice in Precision]),
    default=Precision.FP32.value,
    show_default=True,
    help="Element type of the weights.",
)
@click.option(
    "--opset", type=int, default=20, show_default=True, metavar="N", help="Version of the standard ONNX operators."
)
@click.option(
    "--inline", is_flag=True, help="Write the selection as standard operators, without model-local functions."
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Images to check parity on.  [default: shipped ones]",
)
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
@debug_option
def command(
    model: str | None,
    weights: Path | None,
    pretrained: bool,
    random_weights: bool,
    densities: tuple[str, ...],
    dense_only: bool,
    score: Score,
    prune_at: int | None,
    imgsz: int | None,
    dtype: Precision,
    opset: int,
    inline: bool,
    images: Path | None,
    labels: Path | None,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export a vision transformer to ONNX at one or more token densities, with its dense baseline.

    Each artifact is a folder with model.onnx, manifest.json and golden.npz, checked against torch before it is written.
    """
    if dense_only and densities:
        raise InvalidArgument("--dense asks for the baseline alone, --density for more", "leave one of them out")
    asked = () if dense_only else densities or (DEFAULT_DENSITY,)
    parsed = tuple(parse_density(text) for text in asked)
    source = _weights_source(weights, pretrained, random_weights)
    if model is None:
        progress(f"no --model: exporting the demonstration model, {demo.NAME}")
    import torch  # noqa: F401 - of all that exporting needs, what to name first where none of it is installed

    from sait_deploy.export_plan import ExportOptions
    from sait_deploy.exporters.finish import OperatorForm
    from sait_deploy.exporting import export_model
    from sait_deploy.zoo import WeightsRequest, load_model

    options = ExportOptions(
        densities=parsed,
        score=Score(score),
        prune_at=prune_at,
        precision=Precision(dtype),
        opset=opset,
        operators=OperatorForm.INLINE if inline else OperatorForm.FUNCTION,
        images=images,
        labels=labels,
        output=output,
        overwrite=overwrite,
    )
    loaded = load_model(model or demo.NAME, WeightsRequest(source, weights), imgsz)
    artifacts = export_model(loaded, options, progress)
    warnings = list(dict.fromkeys(line for artifact in artifacts for line in export_warnings(artifact.manifest)))
    if as_json:
        manifests = [{"path": str(a.path), **dataclasses.asdict(a.manifest)} for a in artifacts]
        click.echo(json.dumps({"artifacts": manifests, "warnings": warnings}, indent=2))
    else:
        show(_summary(artifacts))
    for line in warnings:
        warn(line)


def _weights_source(weights: Path | None, pretrained: bool, random_weights: bool) -> WeightsSource:
    named = [
        (weights is not None, "--weights", WeightsSource.FILE),
        (pretrained, "--pretrained", WeightsSource.PRETRAINED),
        (random_weights, "--random-weights", WeightsSource.RANDOM),
    ]
    given = [(flag, source) for is_given, flag, source in named if is_given]
    if len(given) > 1:
        raise InvalidArgument(f"{' and '.join(flag for flag, _ in given)} name different weights", "give one of them")
    return given[0][1] if given else WeightsSource.DEMO


def export_warnings(manifest: Manifest) -> list[str]:
    """Returns what a user should know before deploying an artifact."""
    lines = []
    if manifest.weights.source is WeightsSource.RANDOM:
        lines.append("random weights: the answers mean nothing, only the speed does")
    elif manifest.pruning is not None:
        known = manifest.accuracy
        accuracy = (
            "accuracy unmeasured"
            if known.status is AccuracyStatus.UNMEASURED
            else f"{known.top1_percent:.1f} % right on {known.images} images here"
        )
        if not manifest.weights.trained_sparse:
            lines.append(f"{manifest.name}: never trained sparse; {accuracy}")
    return lines


def _summary(artifacts: list[Artifact]) -> object:
    rows = []
    for artifact in artifacts:
        manifest, parity = artifact.manifest, artifact.manifest.parity
        rows.append(
            (
                str(artifact.path),
                f"{manifest.patch_tokens_kept} of {manifest.model.geometry.patch_tokens}",
                f"{manifest.macs.per_image / 1e9:.3f}",
                f"{manifest.macs.ratio:.2f}",
                f"{parity.largest_difference:.1e} of {parity.tolerance:g}",
                "–" if parity.kept_sets_equal_torch is None else f"{100 * parity.kept_sets_equal_torch:.0f} %",
                f"{artifact.model_path.stat().st_size / 2**20:.1f}",
            )
        )
    columns = (
        "artifact",
        "tokens kept",
        "GMACs/image",
        "MAC ratio ×",
        "largest difference",
        "kept sets as torch",
        "MiB",
    )
    return table(None, columns, rows)
