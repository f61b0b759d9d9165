"""Tables of what was quantised, and notes on what to know before deploying it."""

from __future__ import annotations

from collections.abc import Sequence

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.quantization_info import ComparedPoint, Gate, QuantizationInfo
from sait_deploy.exporting.tables import folders_title
from sait_deploy.quantization.exclusion import COSTLY
from sait_deploy.quantization.options import CALIBRATION_IMAGES
from sait_deploy.reports.table import Note, Severity, Table, figures, words


def quantized_table(artifacts: Sequence[Artifact]) -> Table:
    """Returns a table of int8 artifacts, a row for each operating point; in brackets what the float artifact has."""
    columns = [
        *(words("artifact"), words("point"), figures("same top-1"), figures("right (float)"), figures("kept (float)")),
        *(figures("other kept sets"), figures("layers int8"), figures("MiB")),
    ]
    return Table.of(folders_title(artifacts), columns, [row for artifact in artifacts for row in _rows(artifact)])


def _rows(artifact: Artifact) -> list[tuple[str, ...]]:
    info = _info(artifact.manifest)
    size = f"{artifact.model_path.stat().st_size / 2**20:.1f}"
    layers = f"{len(info.quantized)} of {len(info.quantized) + len(info.kept_float)}"
    if not info.compared:
        return [(artifact.path.name, "–", "–", "–", "–", "–", layers, size)]
    return [
        (artifact.path.name, point.name or "–", f"{point.agreement:.2f} %", *_cells(point), layers, size)
        for point in info.compared
    ]


def _cells(point: ComparedPoint) -> tuple[str, str, str]:
    right = "–"
    if point.right is not None and point.float_right is not None:
        right = f"{100 * point.right / point.images:.1f} % ({100 * point.float_right / point.images:.1f} %)"
    sets = "–" if point.other_sets is None else f"{100 * point.other_sets / point.images:.1f} %"
    return right, f"{point.kept:.1f} ({point.float_kept:.1f})", sets


def quantize_notes(manifests: Sequence[Manifest]) -> list[Note]:
    """Returns what a user should know before deploying int8 artifacts, each once, warnings first."""
    warnings = [text for manifest in manifests for text in _warnings(_info(manifest))]
    told = [text for manifest in manifests for text in _told(manifest)]
    return [
        *(Note(text, Severity.WARNING) for text in dict.fromkeys(warnings)),
        *(Note(text) for text in dict.fromkeys(told)),
    ]


def _warnings(info: QuantizationInfo) -> list[str]:
    calibration, texts = info.calibration, []
    if info.gate is Gate.UNMEASURED:
        return ["random weights: the answers mean nothing and were not compared, only the speed does"]
    if calibration.images < CALIBRATION_IMAGES:
        texts.append(
            f"calibrated on {calibration.images} images, {calibration.source}: {CALIBRATION_IMAGES} are better"
        )
    if calibration.classes == 1:
        texts.append(f"all calibration images are of one class ({calibration.source}): ranges may not hold for others")
    return texts


def _told(manifest: Manifest) -> list[str]:
    costly = [layer for layer, reason in _info(manifest).kept_float.items() if reason == COSTLY]
    return [f"{manifest.name}: {', '.join(costly)} stay float, as their int8 costs most"] if costly else []


def _info(manifest: Manifest) -> QuantizationInfo:
    assert manifest.quantization is not None
    return manifest.quantization
