"""What the benchmarks of the server serve: a model in int8 with random weights, and the points that load may choose."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.manifest import Form, Precision, WeightsSource
from sait_deploy.artifacts.points import PointRequest
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.quantization.stage import quantize
from sait_deploy.system.progress import Progress, no_progress

MODEL: Final = "deit_small_patch16_224"
DENSITY: Final = Decimal("0.535")
"""Keeps 105 of 196 patch tokens of every image, the mean of what requests ask of the adaptive form."""

SHARES: Final = {"quality": 0.535, "balanced": 0.40, "fast": 0.28}
"""Points from dear to cheap, each by the share of patch tokens that it keeps of every image."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The three forms of one model in one precision."""

    dense: Artifact
    density: Artifact
    adaptive: Artifact

    @classmethod
    def of(cls, artifacts: list[Artifact], precision: Precision) -> Artifacts:
        """Returns those in a precision."""
        found = {one.manifest.form: one for one in artifacts if one.manifest.dtype is precision}
        return cls(found[Form.DENSE], found[Form.DENSITY], found[Form.ADAPTIVE])


def points_of(patch_tokens: int) -> tuple[PointRequest, ...]:
    """Returns the points, which keep fixed numbers: random weights score all tokens alike, so masses mean nothing."""
    kept = {name: round(share * patch_tokens) for name, share in SHARES.items()}
    return tuple(PointRequest(name, 1.0, count, count) for name, count in kept.items())


def artifacts_in(folder: Path, name: str = MODEL, progress: Progress = no_progress) -> Artifacts:
    """Exports the model and quantises it, each unless that was done before."""
    there = [open_artifact(path) for path in Workspace(folder).artifacts()]
    if not there:
        source = WeightsSource.RANDOM
        model = load_model(name, WeightsRequest(source))
        points = points_of(model.info.geometry.patch_tokens)
        there = export_model(model, ExportOptions((DENSITY,), points, output=folder), progress)
    if not any(one.manifest.dtype is Precision.INT8 for one in there):
        there += quantize(there, progress=progress)
    return Artifacts.of(there, Precision.INT8)
