"""The export stage: a model and options in, checked artifact folders out."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import nn

from sait_deploy.artifact import GOLDEN_FILE, MODEL_FILE, Artifact, Workspace, open_artifact, sha256_of, write_manifest
from sait_deploy.dataset import Dataset, folder_dataset, shipped_dataset
from sait_deploy.errors import InvalidArgument, StorageError
from sait_deploy.exporters.finish import IMPORTANCE, KEEP, FinishOptions, OperatorForm, finish, save
from sait_deploy.exporters.trace import trace
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
from sait_deploy.models import FixedPruning, PrunableViT, check_pruning
from sait_deploy.parity import ParityImages, ParityResult, check_parity
from sait_deploy.preprocess import cropped, normalised, open_image
from sait_deploy.runtime.base import RunOptions, RuntimeName
from sait_deploy.runtime.onnxruntime import OnnxRuntimeRunner, require_onnxruntime
from sait_deploy.schedule import (
    Score,
    default_prune_at,
    dense_macs,
    density_point,
    kept_at_density,
    pruned_macs,
)
from sait_deploy.zoo import LoadedModel, describe

OPSETS: Final = range(18, 24)
DEFAULT_OPSET: Final = 20
PARITY_IMAGES: Final = 24
_TOOLS: Final = ("sait-deploy", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy", "Pillow")
_UNCHECKED: Final = ParityInfo("", 0, "", (), 0.0, 0.0, None, 0.0, None)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export and where to.

    Attributes:
        densities: token densities in (0, 1], one artifact each; the dense baseline is always exported too.
        score: how importance is read off the attention.
        prune_at: block to prune in; None for depth // 4.
        precision: element type of the weights.
        opset: version of the standard ONNX operators.
        operators: whether ``ai.sait`` operators stay nodes with functions or are inlined.
        images: images for the parity check; None for the shipped ones.
        labels: file of class names, one a line.
        output: folder for the artifacts.
        overwrite: whether an artifact of the same identity may be replaced.
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


DEFAULT_OPTIONS: Final = ExportOptions(densities=(Decimal("0.6"),))


@dataclass(frozen=True, slots=True)
class _Plan:
    """One artifact to make."""

    form: Form
    density: Decimal | None
    pruning: FixedPruning | None
    name: str
    id: str


def export_model(model: LoadedModel, options: ExportOptions, progress: Progress = lambda _: None) -> list[Artifact]:
    """Exports a model at the densities asked for, and its dense baseline.

    Each graph is compared with the torch model on real images before it takes its place. A baseline that is already
    there, whole, is kept.

    Args:
        model: the model, as ``sait_deploy.zoo`` loads it.
        options: what to export.
        progress: told what is being done, one line at a time.

    Returns:
        The artifacts, the dense baseline first.

    Raises:
        InvalidArgument: options that do not fit each other or the model.
        ParityError: a graph does not agree with its references.
        StorageError: an artifact is there already, or cannot be written.
        ImageError: a parity image cannot be read.
    """
    require_onnxruntime()
    if options.opset not in OPSETS:
        raise InvalidArgument(f"opset {options.opset} is not supported", f"use {OPSETS[0]} to {OPSETS[-1]}")
    model = _with_labels(model, options.labels)
    plans = _plans(model, options)
    workspace = Workspace(options.output)
    workspace.prepare()
    existing = {plan.id: place for plan in plans if (place := workspace.find(plan.id)) is not None}
    for plan in plans[1:] if len(plans) > 1 else plans:
        if plan.id in existing and not options.overwrite:
            raise StorageError(f"{existing[plan.id]} is already there", "give --overwrite, or another --output")
    data = _parity_data(model, options)
    artifacts = []
    for plan in plans:
        if plan.id in existing and not options.overwrite:
            progress(f"{plan.name}: already there, kept")
            artifacts.append(open_artifact(existing[plan.id]))
        else:
            artifacts.append(_export_one(model, options, plan, plans[0], workspace, data, progress))
    workspace.record_last_export([artifact.path for artifact in artifacts])
    return artifacts


def _with_labels(model: LoadedModel, labels: Path | None) -> LoadedModel:
    if labels is None:
        return model
    try:
        names = tuple(line.strip() for line in labels.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"labels file {labels} cannot be read ({error})", "one class name a line, UTF-8") from None
    if len(names) != model.info.classes:
        raise InvalidArgument(f"{labels} names {len(names)} classes, the model has {model.info.classes}", "one class name a line")
    return dataclasses.replace(model, info=dataclasses.replace(model.info, labels=names))


def _plans(model: LoadedModel, options: ExportOptions) -> list[_Plan]:
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
) -> _Plan:
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
    identity = (info.name, info.image_size, model.weights.sha256, form, density, pruning)
    digest = fingerprint(*identity, options.precision, options.opset, options.operators)
    return _Plan(form, density, pruning, name, f"{name}-{digest}")


def _parity_data(model: LoadedModel, options: ExportOptions) -> tuple[Dataset, np.ndarray[Any, Any]]:
    if options.images is None:
        dataset = shipped_dataset(model.info.name)
    else:
        dataset = folder_dataset(options.images, model.info.labels, model.info.classes)
    dataset = dataset.sample(PARITY_IMAGES)
    return dataset, np.stack([np.asarray(cropped(open_image(i), model.preprocessing)) for i in dataset.images])


def _export_one(
    model: LoadedModel,
    options: ExportOptions,
    plan: _Plan,
    baseline: _Plan,
    workspace: Workspace,
    data: tuple[Dataset, np.ndarray[Any, Any]],
    progress: Progress,
) -> Artifact:
    dataset, pixels = data
    images = normalised(pixels, model.preprocessing)
    manifest = _manifest(model, options, plan, baseline)
    place = workspace.place_for(plan.name, plan.id)
    with workspace.writing(place) as folder:
        progress(f"{plan.name}: tracing")
        module = PrunableViT(model.vit, plan.pruning, options.precision)
        graph = trace(module, model.info.image_size, [t.name for t in manifest.outputs], options.opset)
        metadata = {f"sait.{key}": value for key, value in _metadata(manifest).items()}
        files = save(finish(graph, FinishOptions(options.opset, options.operators, metadata)), folder / MODEL_FILE)
        del graph, module
        progress(f"{plan.name}: comparing with torch on {len(images)} images")
        draft = Artifact(folder, manifest)
        runner = OnnxRuntimeRunner(draft, RuntimeName.ONNXRUNTIME, RunOptions())
        reference = PrunableViT(model.vit, plan.pruning)
        parity = check_parity(runner, reference, ParityImages(images, dataset.source))
        answer = runner.run(images[:1])
        counts = answer.kept + np.int32(model.info.geometry.prefix_tokens)
        golden = {"pixels": pixels[0], "images": images[:1], "logits": answer.logits, "counts": counts}
        np.savez(folder / GOLDEN_FILE, allow_pickle=False, **golden)
        manifest = dataclasses.replace(
            manifest,
            parity=parity.info,
            accuracy=_accuracy(parity, dataset),
            files={file: sha256_of(folder / file) for file in [*files, GOLDEN_FILE]},
        )
        write_manifest(folder, manifest)
    return Artifact(place, manifest)


def _accuracy(parity: ParityResult, dataset: Dataset) -> AccuracyInfo:
    if dataset.labels is None:
        return AccuracyInfo(AccuracyStatus.UNMEASURED, 0, None)
    right = float((parity.logits.argmax(axis=1) == dataset.labels).mean())
    return AccuracyInfo(AccuracyStatus.MEASURED, len(dataset.labels), round(100.0 * right, 2))


def _manifest(model: LoadedModel, options: ExportOptions, plan: _Plan, baseline: _Plan) -> Manifest:
    geometry, info = model.info.geometry, model.info
    dense = dense_macs(geometry)
    macs, pruning = dense, None
    outputs = [TensorInfo("logits" if info.classes else "features", "float32", ("batch", info.classes or geometry.width))]
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
        fp32_operators=() if options.precision is Precision.FP32 else ("LayerNormalization", "Softmax", "MassTokenSelect"),
        opset=options.opset,
        inlined=options.operators is OperatorForm.INLINE,
        parity=_UNCHECKED,
        accuracy=AccuracyInfo(AccuracyStatus.UNMEASURED, 0, None),
        macs=MacsInfo(macs, dense, dense / macs),
        baseline=None if plan.id == baseline.id else baseline.id,
        tools=_tools(),
        files={},
    )


def _metadata(manifest: Manifest) -> dict[str, str]:
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


def export(
    module: nn.Module,
    options: ExportOptions = DEFAULT_OPTIONS,
    name: str | None = None,
    progress: Progress = lambda _: None,
) -> list[Artifact]:
    """Exports a timm model that exists in memory. Raises what :func:`export_model` raises.

    Args:
        module: a supported timm model.
        options: what to export; density 0.6 where left out.
        name: what to call it; None for its timm name.
        progress: told what is being done, one line at a time.
    """
    known = getattr(module, "pretrained_cfg", None) or {}
    called = name or known.get("architecture") or type(module).__name__
    return export_model(describe(module, called, WeightsSource.MEMORY, None), options, progress)
