"""The plan of an export: its options, what each artifact is called, and what its manifest says before it is checked."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from torch import nn

from sait_deploy.exporters.finish import IMPORTANCE, KEEP, OperatorForm
from sait_deploy.manifest import (
    SCHEMA_VERSION,
    AccuracyInfo,
    AccuracyStatus,
    Form,
    MacsInfo,
    Manifest,
    ParityInfo,
    Precision,
    PruningInfo,
    TensorInfo,
    WeightsSource,
    fingerprint,
)
from sait_deploy.models import FixedPruning, check_pruning
from sait_deploy.schedule import (
    Score,
    default_prune_at,
    dense_macs,
    density_point,
    kept_at_density,
    parse_density,
    pruned_macs,
)
from sait_deploy.zoo import LoadedModel

OPSETS: Final = range(18, 24)
DEFAULT_OPSET: Final = 20
_TOOLS: Final = (
    "sait-deploy",
    "torch",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "Pillow",
)
_UNCHECKED: Final = ParityInfo("", 0, "", (), 0.0, 0.0, None, 0.0, None)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export and where to.

    Attributes:
        densities: token densities in (0, 1], one artifact each; the dense baseline is always exported too. Text and
            floats are taken as the decimals they show.
        score: how importance is read off the attention.
        prune_at: block to prune in; None for depth // 4.
        precision: element type of the weights.
        opset: version of the standard ONNX operators.
        operators: whether ``ai.sait`` operators stay nodes with functions or are inlined.
        images: images for the parity check; None for the shipped ones.
        labels: file of class names, one a line.
        output: folder for the artifacts.
        overwrite: whether an artifact of the same identity may be replaced.

    Raises:
        InvalidArgument: a density is no number in (0, 1].
    """

    densities: tuple[Decimal, ...] = ()
    score: Score = Score.MEAN
    prune_at: int | None = None
    precision: Precision = Precision.FP32
    opset: int = DEFAULT_OPSET
    operators: OperatorForm = OperatorForm.FUNCTION
    images: Path | None = None
    labels: Path | None = None
    output: Path = field(default_factory=lambda: Path("artifacts"))
    overwrite: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "densities", tuple(parse_density(str(density)) for density in self.densities))


DEFAULT_OPTIONS: Final = ExportOptions(densities=(Decimal("0.6"),))


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """One artifact to make."""

    form: Form
    density: Decimal | None
    pruning: FixedPruning | None
    name: str
    id: str


def plan_exports(model: LoadedModel, options: ExportOptions) -> list[ExportPlan]:
    """Returns what to make, the dense baseline first.

    Raises:
        InvalidArgument: the pruning does not fit the model.
    """
    geometry = model.info.geometry
    prune_at = default_prune_at(geometry.depth) if options.prune_at is None else options.prune_at
    plans = [_plan(model, options, Form.DENSE, None, None)]
    for density in dict.fromkeys(options.densities):
        pruning = FixedPruning(options.score, prune_at, kept_at_density(density, geometry.patch_tokens))
        check_pruning(model.vit, pruning)
        plans.append(_plan(model, options, Form.DENSITY, density, pruning))
    return plans


def _plan(
    model: LoadedModel, options: ExportOptions, form: Form, density: Decimal | None, pruning: FixedPruning | None
) -> ExportPlan:
    """Names an artifact: readable by what is not the default, and an id by all that changes graph or weights."""
    info, parts = model.info, [re.sub(r"[^A-Za-z0-9_.]+", "_", model.info.name)]
    if info.image_size != model.default_image_size:
        parts.append("x".join(str(side) for side in dict.fromkeys(info.image_size)) + "px")
    if pruning is not None and pruning.prune_at != default_prune_at(info.geometry.depth):
        parts.append(f"block{pruning.prune_at}")
    if pruning is not None and pruning.score is not Score.MEAN:
        parts.append(pruning.score)
    if options.precision is not Precision.FP32:
        parts.append(options.precision)
    if options.opset != DEFAULT_OPSET:
        parts.append(f"opset{options.opset}")
    if options.operators is not OperatorForm.FUNCTION:
        parts.append(options.operators)
    parts.append("dense" if density is None else f"density{density:f}")
    name = "-".join(parts)
    # A timm name says what is computed with the weights; of a model in memory only its modules do.
    structure = _structure(model.vit) if model.weights.source is WeightsSource.MEMORY else ""
    identity = (info.name, info.image_size, model.weights.sha256, structure, form, density, pruning)
    digest = fingerprint(*identity, options.precision, options.opset, options.operators)
    return ExportPlan(form, density, pruning, name, f"{name}-{digest}")


def _structure(vit: nn.Module) -> str:
    """Returns what weights do not say of a model: classes of its modules, and their settings, such as heads."""
    passing = ("training", "fused_attn", "grad_checkpointing")
    lines = []
    for name, module in vit.named_modules():
        settings = {
            key: value
            for key, value in sorted(vars(module).items())
            if not key.startswith("_") and key not in passing and isinstance(value, (int, float, str, tuple))
        }
        lines.append(f"{name} {type(module).__name__} {settings}")
    return "\n".join(lines)


def draft_manifest(model: LoadedModel, options: ExportOptions, plan: ExportPlan, baseline: ExportPlan) -> Manifest:
    """Returns a manifest with everything but what checking finds out: parity, accuracy and file hashes."""
    geometry, info = model.info.geometry, model.info
    dense = dense_macs(geometry)
    macs, pruning = dense, None
    outputs = [
        TensorInfo("logits" if info.classes else "features", "float32", ("batch", info.classes or geometry.width))
    ]
    if plan.pruning is not None and plan.density is not None:
        macs = pruned_macs(geometry, plan.pruning.prune_at, plan.pruning.kept)
        outputs.append(TensorInfo("counts", "int32", ("batch",)))
        pruning = PruningInfo(
            score=plan.pruning.score,
            prune_at=plan.pruning.prune_at,
            density=f"{plan.density:f}",
            kept=plan.pruning.kept,
            point=density_point(plan.density, geometry.patch_tokens),
            importance=IMPORTANCE,
            keep=KEEP,
        )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        id=plan.id,
        name=plan.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        form=plan.form,
        model=info,
        weights=model.weights,
        pruning=pruning,
        inputs=(TensorInfo("images", "float32", ("batch", 3, *info.image_size)),),
        outputs=tuple(outputs),
        preprocessing=model.preprocessing,
        dtype=options.precision,
        fp32_operators=()
        if options.precision is Precision.FP32
        else ("LayerNormalization", "Softmax", "MassTokenSelect"),
        opset=options.opset,
        inlined=options.operators is OperatorForm.INLINE,
        parity=_UNCHECKED,
        accuracy=AccuracyInfo(AccuracyStatus.UNMEASURED, 0, None),
        macs=MacsInfo(macs, dense, dense / macs),
        baseline=None if plan.id == baseline.id else baseline.id,
        tools=_tools(),
        files={},
    )


def onnx_metadata(manifest: Manifest) -> dict[str, str]:
    """What is known before the file is written, for readers of the ONNX file alone."""
    pruning = manifest.pruning
    known = {
        "schema_version": manifest.schema_version,
        "id": manifest.id,
        "form": manifest.form,
        "model": manifest.model.name,
        "weights": manifest.weights.source,
        "weights_sha256": manifest.weights.sha256,
        "precision": manifest.dtype,
    }
    if pruning is not None:
        known |= {"score": pruning.score, "prune_at": pruning.prune_at, "density": pruning.density}
    return {key: str(value) for key, value in known.items()}


def _tools() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
