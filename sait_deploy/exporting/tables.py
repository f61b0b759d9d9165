"""Tables of artifacts: what was exported, what each operating point keeps, and what one artifact is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form, Head, Manifest, ParityInfo, WeightsSource
from sait_deploy.artifacts.pruning_info import PointInfo, PruningInfo
from sait_deploy.artifacts.quantization_info import ComparedPoint, Gate, QuantizationInfo
from sait_deploy.artifacts.tower_info import tower_words
from sait_deploy.exporting.inspect import AttentionInfo, Inspection
from sait_deploy.images.preprocessing_choice import preprocessing_words
from sait_deploy.reports.table import Note, Severity, Table, figures, words
from sait_deploy.reports.wording import near_chance

if TYPE_CHECKING:
    from sait_deploy.models.weights import SparseTraining


def exported_tables(artifacts: Sequence[Artifact]) -> list[Table]:
    """Returns a table of the artifacts of an export, and one of the points of each that is adaptive."""
    columns = [
        *(words("artifact"), figures("tokens kept"), figures("GMACs/image"), figures("MAC ratio", "×")),
        *(figures("largest difference"), figures("kept sets as torch"), figures("MiB")),
    ]
    summary = Table.of(folders_title(artifacts), columns, map(_exported_row, artifacts))
    manifests = [artifact.manifest for artifact in artifacts]
    return [summary, *(points_table(manifest) for manifest in manifests if manifest.form is Form.ADAPTIVE)]


def folders_title(artifacts: Iterable[Artifact]) -> str:
    """Returns where artifacts are, for the head of a table that holds their names: a path fits no column."""
    return f"in {', '.join(dict.fromkeys(str(artifact.path.parent) for artifact in artifacts))}"


def _exported_row(artifact: Artifact) -> tuple[str, ...]:
    manifest, parity = artifact.manifest, artifact.manifest.parity
    return (
        artifact.path.name,
        _kept_text(manifest),
        f"{manifest.macs.per_image / 1e9:.3f}",
        f"{manifest.macs.ratio:.2f}",
        f"{parity.largest_difference:.1e} of {parity.tolerance:g}",
        "–" if parity.kept_sets_equal_torch is None else f"{100 * parity.kept_sets_equal_torch:.0f} %",
        f"{artifact.model_path.stat().st_size / 2**20:.1f}",
    )


def export_notes(manifests: Sequence[Manifest], training: SparseTraining | None) -> list[Note]:
    """Returns what a user should know before deploying artifacts of one export, each once.

    Args:
        manifests: the artifacts'.
        training: how their weights were trained sparse; None where they were not, or that is not known.
    """
    texts = [text for manifest in manifests for text in _warnings(manifest, training)]
    return [Note(text, Severity.WARNING) for text in dict.fromkeys((*_hardly_right(manifests), *texts))]


def accuracy_line(manifests: Iterable[Manifest]) -> str | None:
    """Returns how right each artifact of an export is, in a line; None where no images had labels."""
    known = [(one.name, one.accuracy) for one in manifests if one.accuracy.top1_percent is not None]
    return ", ".join(f"{name} {found.top1_percent:.1f} % of {found.images} images" for name, found in known) or None


def _hardly_right(manifests: Iterable[Manifest]) -> list[str]:
    dense = [manifest for manifest in manifests if manifest.form is Form.DENSE]
    known = [(one.accuracy, one.model.classes) for one in dense if one.weights.source is not WeightsSource.RANDOM]
    found = [near_chance(a.top1_percent, a.images, n) for a, n in known if a.top1_percent is not None]
    return [text for text in found if text is not None]


def _warnings(manifest: Manifest, training: SparseTraining | None) -> list[str]:
    if manifest.weights.source is WeightsSource.RANDOM:
        return ["random weights: the answers mean nothing, only the speed does"]
    if manifest.pruning is None:
        return []
    texts = []
    if not manifest.weights.trained_sparse:
        known = manifest.accuracy
        accuracy = "accuracy unmeasured"
        if known.top1_percent is not None:
            accuracy = f"{known.top1_percent:.1f} % right on {known.images} images here"
        texts.append(f"{manifest.name}: never trained sparse; {accuracy}")
    return texts + _untrained_pruning(manifest.pruning, training)


def _untrained_pruning(pruning: PruningInfo, training: SparseTraining | None) -> list[str]:
    own = pruning.score, pruning.prune_at
    if training is None or own == (training.score, training.prune_at):
        return []
    trained = f"block {training.prune_at} by score {training.score}"
    return [f"pruned in block {own[1]} by score {own[0]}, but the weights were trained to be in {trained}"]


def points_table(manifest: Manifest) -> Table:
    """Returns a table of an adaptive artifact's named points: what each of them keeps and what that saves."""
    assert manifest.pruning is not None
    points = manifest.pruning.points
    seen = points[0].kept.images
    images = "1 image" if seen == 1 else f"{seen} images"
    title = f"{manifest.name}: patch tokens kept on {images} ({manifest.parity.image_source})"
    if any(info.kept.images != seen for info in points):
        title += ", tuned points on those they were chosen on"
    names = ("mass", "limits", "images", "mean ± sd", "p5 – p95", "most", "share", "GMACs/image", "MAC ratio ×")
    return Table.of(title, [words("point"), *map(figures, names)], [_point_row(info, manifest) for info in points])


def _point_row(info: PointInfo, manifest: Manifest) -> tuple[str, ...]:
    kept, patches = info.kept, manifest.model.geometry.patch_tokens
    return (
        info.name,
        f"{info.point.mass:g}",
        f"{info.point.min_keep} – {info.point.max_keep}",
        str(kept.images),
        f"{kept.mean:.1f} ± {kept.sd:.1f}",
        f"{kept.p5:.0f} – {kept.p95:.0f}",
        str(kept.most),
        f"{100 * kept.mean / patches:.0f} %",
        f"{info.macs.per_image / 1e9:.3f}",
        f"{info.macs.ratio:.2f}",
    )


def _kept_text(manifest: Manifest) -> str:
    """Returns what the default point keeps: "87 of 144", or an average where images differ."""
    patches, info = manifest.model.geometry.patch_tokens, manifest.default_point
    if info is None:
        return f"{patches} of {patches}"
    if info.point.min_keep == info.point.max_keep:
        return f"{info.point.max_keep} of {patches}"
    return f"{info.kept.mean:.1f} of {patches} on average"


_HEADS: Final = {
    Head.NONE: "the model has no head",
    Head.CLASSIFIER: "the classifier is left out",
    Head.PROJECTION: "the head projects into its space",
}


def inspection_table(found: Inspection) -> Table:
    """Returns what an artifact is made of, a line for each thing known of it."""
    manifest, graph = found.artifact.manifest, found.graph
    model, geometry, pruning = manifest.model, manifest.model.geometry, manifest.pruning
    height, width = model.image_size
    dtype = [manifest.dtype, *([f"fp32: {', '.join(manifest.fp32_operators)}"] if manifest.fp32_operators else [])]
    rows = [
        ("id", manifest.id),
        ("model", f"{model.name} ({model.timm_class}), {model.parameters / 1e6:.2f} M parameters"),
        ("input", f"{height} × {width}, {geometry.patch_tokens} patch + {geometry.prefix_tokens} prefix tokens"),
        ("preprocessing", preprocessing_words(manifest.preprocessing, manifest.preprocessing_sources)),
        ("weights", f"{manifest.weights.source}, SHA-256 {manifest.weights.sha256[:12]}…"),
        ("precision", "; ".join(dtype)),
    ]
    if model.embedding is not None:
        what = f"an embedding of {model.embedding.width} numbers, of unit length"
        rows.append(("answer", f"{what}; {_HEADS[model.embedding.head]}"))
    if model.tower is not None:
        rows.append(("answer", tower_words(model.tower, geometry.width, geometry.prefix_tokens)))
        shapes = [f"{one.name} {one.dtype} [{', '.join(map(str, one.shape))}]" for one in manifest.outputs]
        rows.append(("outputs", ", ".join(shapes)))
    if pruning is not None:
        what = "adaptive" if pruning.density is None else f"density {pruning.density}"
        where = f"in block {pruning.prune_at} by {pruning.score} score"
        if pruning.threshold is not None:
            where += f", of at least {pruning.threshold:g} times uniform importance"
        rows.append(("pruning", f"{what}: keeps {_kept_text(manifest)}, {where}"))
    rows += [
        ("MACs per image", f"{manifest.macs.per_image / 1e9:.3f} G, MAC ratio {manifest.macs.ratio:.2f} ×"),
        ("accuracy", _accuracy_text(manifest)),
        ("parity", _parity_text(manifest.parity)),
        *(() if manifest.quantization is None else _quantization_rows(manifest.quantization)),
        ("opsets", ", ".join(f"{domain} {version}" for domain, version in graph.opsets.items())),
        ("operators", ", ".join(f"{count} {name}" for name, count in graph.operators.items())),
        ("functions", ", ".join(graph.functions) or "none"),
        ("attention", _attention_text(found.attention)),
        ("weights in file", f"{graph.weight_bytes / 2**20:.1f} MiB"),
    ]
    if found.parity is not None:
        rows.append(("checked again", _parity_text(found.parity)))
    return Table.of(str(found.artifact.path), [words(), words()], rows)


def _quantization_rows(info: QuantizationInfo) -> list[tuple[str, str]]:
    calibration = info.calibration
    points = f", at {', '.join(calibration.points)}" if calibration.points else ""
    reasons: dict[str, list[str]] = {}
    for layer, reason in info.kept_float.items():
        reasons.setdefault(reason, []).append(layer)
    rows = [
        ("int8", f"{len(info.quantized)} linear layers; {calibration.method}"),
        ("calibrated on", f"{calibration.images} images ({calibration.source}){points}"),
        *(("stay float", f"{', '.join(layers)}: {reason}") for reason, layers in reasons.items()),
    ]
    if info.gate is Gate.UNMEASURED:
        return [*rows, ("agreement", "unmeasured, as the weights are random")]
    return [*rows, *(("agreement", compared_text(point)) for point in info.compared)]


def compared_text(point: ComparedPoint) -> str:
    """Returns how an int8 artifact compares with the float one at an operating point, in words."""
    what = "mean cosine" if point.same_top1 is None else "same top-1"
    parts = [f"{point.agreement:.1f} % {what} on {point.images} images"]
    if point.right is not None and point.float_right is not None:
        parts.append(f"right {100 * point.right / point.images:.1f} % ({100 * point.float_right / point.images:.1f} %)")
    if point.other_sets is not None:
        parts.append(f"kept {point.kept:.1f} ({point.float_kept:.1f})")
        parts.append(f"another set of tokens on {100 * point.other_sets / point.images:.1f} %")
    return ("" if point.name is None else f"{point.name}: ") + ", ".join(parts)


def _accuracy_text(manifest: Manifest) -> str:
    known = manifest.accuracy
    sparse = "" if manifest.weights.trained_sparse else "; never trained sparse"
    if known.top1_percent is None:
        return f"unmeasured{sparse}"
    return f"{known.top1_percent:.1f} % right on {known.images} images{sparse}"


def _attention_text(info: AttentionInfo | str) -> str:
    if isinstance(info, str):
        return info
    return (
        f"of {info.blocks}, ONNX Runtime CPU fuses {info.fused} into one operator, "
        f"and the scaled product of {info.products} into its matrix product"
    )


def _parity_text(parity: ParityInfo) -> str:
    top1 = "" if parity.top1_agreement is None else f", same top-1 on {100 * parity.top1_agreement:.0f} %"
    batches = ", ".join(map(str, parity.batches))
    points = f", at {', '.join(parity.points)}" if len(parity.points) > 1 else ""
    return (
        f"largest difference {parity.largest_difference:.1e} of {parity.tolerance:g}{top1}, "
        f"{parity.images} images ({parity.image_source}), batches {batches}, {parity.runtime}{points}"
    )
