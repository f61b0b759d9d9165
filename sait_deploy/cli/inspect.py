"""``sait-deploy inspect``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form, ParityInfo
from sait_deploy.cli._engines import ShownEngine, engine_as_dict, engines_table, shown_engines
from sait_deploy.cli._options import debug_option, json_option, workspace_option
from sait_deploy.cli._pruning import kept_text, points_table
from sait_deploy.cli._render import live_progress, show, table
from sait_deploy.errors import InvalidArgument, MissingDependency, RuntimeUnavailable
from sait_deploy.exporting.inspect import AttentionInfo, GraphInfo, check, inspect_attention, inspect_graph


@click.command()
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path), metavar="[ARTIFACT]...")
@click.option("--check", "compare", is_flag=True, help="Compare with the torch model of the same weights again.")
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="DIR", help="Images for --check.  [default: shipped ones]"
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights for --check, where the manifest's are gone.",
)
@workspace_option
@json_option
@debug_option
def command(
    artifacts: tuple[Path, ...],
    compare: bool,
    images: Path | None,
    weights: Path | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Show what artifacts are: manifest, graph, multiply-accumulates.

    With no ARTIFACT, what was exported last is shown.
    """
    if not compare and (images is not None or weights is not None):
        raise InvalidArgument("--images and --weights are for comparing with torch", "give --check as well")
    found: list[tuple[Artifact, GraphInfo, AttentionInfo | str, ParityInfo | None, list[ShownEngine]]] = []
    with live_progress(keep_lines=compare) as progress:
        for path in artifacts or Workspace(workspace).last_export():
            artifact = open_artifact(path)
            progress(f"{artifact.path.name}: {'comparing with torch' if compare else 'reading'}")
            graph = inspect_graph(artifact)
            parity = check(artifact, images, weights) if compare else None
            found.append((artifact, graph, attention_of(artifact), parity, shown_engines(artifact)))
    if as_json:
        click.echo(json.dumps([_as_dict(*entry) for entry in found], indent=2))
    else:
        for artifact, graph, attention, parity, engines in found:
            show(table(str(artifact.path), ("", ""), _rows(artifact, graph, attention, parity), words=("",)), "")
            if artifact.manifest.form is Form.ADAPTIVE:
                show(*points_table(artifact.manifest), "")
            if engines:
                show(*engines_table(engines), "")
    for *_, engines in found:
        for engine in engines:
            if engine.damage is not None:
                raise engine.damage


def attention_of(artifact: Artifact) -> AttentionInfo | str:
    """Returns what ONNX Runtime makes of attention, or why that is not known."""
    try:
        return inspect_attention(artifact)
    except (MissingDependency, RuntimeUnavailable) as error:
        return f"unknown: {error.message}"


def _as_dict(
    artifact: Artifact,
    graph: GraphInfo,
    attention: AttentionInfo | str,
    parity: ParityInfo | None,
    engines: list[ShownEngine],
) -> dict[str, object]:
    checked = None if parity is None else dataclasses.asdict(parity)
    return {
        "path": str(artifact.path),
        "manifest": dataclasses.asdict(artifact.manifest),
        "graph": dataclasses.asdict(graph),
        "attention": attention if isinstance(attention, str) else dataclasses.asdict(attention),
        "check": checked,
        "engines": [engine_as_dict(engine) for engine in engines],
    }


def _rows(
    artifact: Artifact, graph: GraphInfo, attention: AttentionInfo | str, parity: ParityInfo | None
) -> list[tuple[str, str]]:
    manifest = artifact.manifest
    model, geometry, pruning = manifest.model, manifest.model.geometry, manifest.pruning
    height, width = model.image_size
    rows = [
        ("id", manifest.id),
        ("model", f"{model.name} ({model.timm_class}), {model.parameters / 1e6:.2f} M parameters"),
        (
            "input",
            f"{height} × {width}, {geometry.patch_tokens} patch + {geometry.prefix_tokens} prefix tokens",
        ),
        ("weights", f"{manifest.weights.source}, SHA-256 {manifest.weights.sha256[:12]}…"),
        (
            "precision",
            manifest.dtype
            if not manifest.fp32_operators
            else f"{manifest.dtype}; fp32: {', '.join(manifest.fp32_operators)}",
        ),
    ]
    if pruning is not None:
        what = "adaptive" if pruning.density is None else f"density {pruning.density}"
        where = f"in block {pruning.prune_at} by {pruning.score} score"
        rows.append(("pruning", f"{what}: keeps {kept_text(manifest)}, {where}"))
    operators = ", ".join(f"{count} {name}" for name, count in graph.operators.items())
    rows += [
        ("MACs per image", f"{manifest.macs.per_image / 1e9:.3f} G, MAC ratio {manifest.macs.ratio:.2f} ×"),
        ("accuracy", _accuracy(artifact)),
        ("parity", _parity(manifest.parity)),
        ("opsets", ", ".join(f"{domain} {version}" for domain, version in graph.opsets.items())),
        ("operators", operators),
        ("functions", ", ".join(graph.functions) or "none"),
        ("attention", _attention(attention)),
        ("weights in file", f"{graph.weight_bytes / 2**20:.1f} MiB"),
    ]
    if parity is not None:
        rows.append(("checked again", _parity(parity)))
    return rows


def _accuracy(artifact: Artifact) -> str:
    known = artifact.manifest.accuracy
    sparse = "" if artifact.manifest.weights.trained_sparse else "; never trained sparse"
    if known.top1_percent is None:
        return f"unmeasured{sparse}"
    return f"{known.top1_percent:.1f} % right on {known.images} images{sparse}"


def _attention(info: AttentionInfo | str) -> str:
    if isinstance(info, str):
        return info
    return (
        f"of {info.blocks}, ONNX Runtime CPU fuses {info.fused} into one operator, "
        f"and the scaled product of {info.products} into its matrix product"
    )


def _parity(parity: ParityInfo) -> str:
    top1 = "" if parity.top1_agreement is None else f", same top-1 on {100 * parity.top1_agreement:.0f} %"
    batches = ", ".join(map(str, parity.batches))
    points = f", at {', '.join(parity.points)}" if len(parity.points) > 1 else ""
    return (
        f"largest difference {parity.largest_difference:.1e} of {parity.tolerance:g}{top1}, "
        f"{parity.images} images ({parity.image_source}), batches {batches}, {parity.runtime}{points}"
    )
