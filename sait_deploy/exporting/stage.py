"""The export stage: a model and options in, checked artifact folders out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import GOLDEN_FILE, MODEL_FILE, Artifact, Workspace, open_artifact, write_manifest
from sait_deploy.artifacts.golden import write_golden
from sait_deploy.artifacts.manifest import AccuracyInfo, AccuracyStatus, Form, Precision, Task, WeightsSource
from sait_deploy.artifacts.manifest_parts import measured_points, onnx_metadata
from sait_deploy.errors import InvalidArgument, StorageError
from sait_deploy.exporters.finish import FinishOptions, finish, save
from sait_deploy.exporters.names import KEEP_LIMITS, MASS
from sait_deploy.exporters.trace import TRACED_BATCH, trace
from sait_deploy.exporting.manifest import draft_manifest
from sait_deploy.exporting.parity import ParityImages, ParityResult, check_parity
from sait_deploy.exporting.plan import DEFAULT_OPTIONS, OPSETS, ExportOptions, ExportPlan, plan_exports
from sait_deploy.images.dataset import BRIGHTNESS, Dataset, folder_dataset, shipped_dataset
from sait_deploy.images.labels import read_labels
from sait_deploy.images.preprocess import normalised, seen
from sait_deploy.models.embedder import for_task, projects
from sait_deploy.models.in_memory import in_inference_mode
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.registry import LoadedModel, describe, with_preprocessing
from sait_deploy.runtime.golden import golden_of
from sait_deploy.runtime.onnxruntime import OnnxRuntimeRunner, require_onnxruntime
from sait_deploy.runtime.options import RunOptions
from sait_deploy.system.progress import Progress, logged

PARITY_IMAGES: Final = 24


def export_model(model: LoadedModel, options: ExportOptions, progress: Progress = logged) -> list[Artifact]:
    """Exports a model at the densities and points asked for, and its dense baseline.

    Each graph is compared with the torch model on real images before it takes its place. A baseline that is already
    there, whole, is kept.

    Args:
        model: the model, as ``sait_deploy.models.registry`` loads it.
        options: what to export.
        progress: called with each step.

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
    model = with_preprocessing(_with_labels(_for_task(model, options, progress), options.labels), options.preprocessing)
    plans = plan_exports(model, options)
    workspace = Workspace(options.output)
    workspace.prepare()
    existing = {plan.id: place for plan in plans if (place := workspace.find(plan.id)) is not None}
    for plan in plans[1:] if len(plans) > 1 else plans:
        if plan.id in existing and not options.overwrite:
            raise StorageError(f"{existing[plan.id]} is already there", "give --overwrite, or another --output")
    kept = {} if options.overwrite else {artifact_id: open_artifact(place) for artifact_id, place in existing.items()}
    model = _same_labels(model, kept.values(), progress)
    data = _parity_data(model, options, progress)
    artifacts = []
    for plan in plans:
        there = kept.get(plan.id)
        if there is not None and there.manifest.model.labels != model.info.labels:
            progress(f"{plan.name}: already there without labels, exported again with them")
            there = None
        elif there is not None and data.dataset.labels is not None and there.manifest.accuracy.top1_percent is None:
            progress(f"{plan.name}: already there, never measured on labelled images, exported again with them")
            there = None
        if there is not None:
            progress(f"{plan.name}: already there, kept")
            artifacts.append(there)
        else:
            artifacts.append(_export_one(model, options, plan, plans[0], workspace, data, progress))
    workspace.record_last_export([artifact.path for artifact in artifacts])
    return artifacts


def _for_task(model: LoadedModel, options: ExportOptions, progress: Progress) -> LoadedModel:
    made = for_task(model, options.task, options.head, options.tower)
    if made.info.task is Task.CLASSIFY and options.task is None and projects(made):
        progress(f"the head of {made.info.name} is a projection, exported as if it were a classifier: see --task embed")
    for note in made.weights.notes[len(model.weights.notes) :]:
        progress(note)
    return made


def _with_labels(model: LoadedModel, labels: Path | None) -> LoadedModel:
    if labels is None:
        return model
    names = read_labels(labels, model.info.classes)
    return dataclasses.replace(model, info=dataclasses.replace(model.info, labels=names, labels_source=None))


def _same_labels(model: LoadedModel, kept: Iterable[Artifact], progress: Progress) -> LoadedModel:
    """Returns the model with the labels of artifacts that are kept, where it has none of its own.

    Raises:
        InvalidArgument: it has others than they.
    """
    for artifact in kept:
        own, known = model.info.labels, artifact.manifest.model.labels
        if known is None or own == known:
            continue
        if own is not None:
            number = next(i for i, (one, other) in enumerate(zip(own, known, strict=True)) if one != other)
            raise InvalidArgument(
                f"class {number} is {own[number]!r} here, and {known[number]!r} in {artifact.path}",
                "give the labels it has, --overwrite, or another --output",
            )
        progress(f"labels: those of {artifact.path.name}")
        model = dataclasses.replace(model, info=dataclasses.replace(model.info, labels=known))
    return model


@dataclass(frozen=True, slots=True)
class _ParityData:
    """What every graph of an export is compared on: images uint8 [n, H, W, C] and as the model takes them."""

    dataset: Dataset
    pixels: NDArray[np.uint8]
    images: NDArray[np.float32]


def _parity_data(model: LoadedModel, options: ExportOptions, progress: Progress) -> _ParityData:
    if options.images is None:
        dataset = shipped_dataset(model.info.name, model.preprocessing.channels)
        if not model.info.classes:  # the shipped images of the demonstration's classes, and a model without them
            dataset = dataclasses.replace(dataset, labels=None)
        if dataset.source == BRIGHTNESS:
            progress(f"images: {dataset.source}")
    else:
        dataset = folder_dataset(options.images, model.info.labels, model.info.classes, options.class_map)
        if dataset.source != str(options.images):
            progress(f"images: {dataset.source}")
    dataset = dataset.sample(PARITY_IMAGES)
    pixels = np.stack([seen(image, model.preprocessing) for image in dataset.images])
    return _ParityData(dataset, pixels, normalised(pixels, model.preprocessing))


def _export_one(
    model: LoadedModel,
    options: ExportOptions,
    plan: ExportPlan,
    baseline: ExportPlan,
    workspace: Workspace,
    data: _ParityData,
    progress: Progress,
) -> Artifact:
    images = data.images
    manifest = draft_manifest(model, options, plan, baseline)
    place = workspace.place_for(plan.name, plan.id)
    with workspace.writing(place) as folder:
        progress(f"{plan.name}: tracing", 0.0)
        asked = options.outputs, model.info.task, options.feature_blocks, model.info.tower
        module = PrunableViT(model.vit, plan.pruning, options.precision, *asked)
        size = (model.preprocessing.channels, *model.info.image_size)
        graph = trace(module, size, manifest.output_names, options.opset, _point_inputs(plan, options), options.batch)
        finishing = FinishOptions(options.opset, options.operators, onnx_metadata(manifest))
        files = save(finish(graph, finishing), folder / MODEL_FILE)
        del graph, module
        progress(f"{plan.name}: tracing", 1.0)
        step = f"{plan.name}: comparing with torch on {len(images)} images"
        progress(step, 0.0)
        draft = Artifact(folder, manifest)
        runner = OnnxRuntimeRunner(draft, RunOptions())
        reference = PrunableViT(model.vit, plan.pruning, Precision.FP32, *asked)
        parity = check_parity(runner, reference, ParityImages(images, data.dataset.source))
        write_golden(folder / GOLDEN_FILE, golden_of(runner, data.pixels[0], images[:1].repeat(options.batch or 1, 0)))
        manifest = dataclasses.replace(
            measured_points(manifest, parity.kept),
            parity=parity.info,
            accuracy=_accuracy(parity, data.dataset),
            files={file: sha256_of(folder / file) for file in [*files, GOLDEN_FILE]},
        )
        write_manifest(folder, manifest)
        progress(step, 1.0)
    return Artifact(place, manifest)


def _point_inputs(plan: ExportPlan, options: ExportOptions) -> dict[str, Tensor]:
    """Returns example inputs for an adaptive graph's operating points."""
    if plan.form is not Form.ADAPTIVE:
        return {}
    batch = options.batch or TRACED_BATCH
    return {MASS: torch.ones(batch), KEEP_LIMITS: torch.tensor([[1, 1]] * batch, dtype=torch.int32)}


def _accuracy(parity: ParityResult, dataset: Dataset) -> AccuracyInfo:
    if dataset.labels is None:
        return AccuracyInfo(AccuracyStatus.UNMEASURED, 0, None)
    right = float((parity.logits.argmax(axis=1) == dataset.labels).mean())
    return AccuracyInfo(AccuracyStatus.MEASURED, len(dataset.labels), round(100.0 * right, 2))


def export(
    model: nn.Module | LoadedModel,
    options: ExportOptions = DEFAULT_OPTIONS,
    name: str | None = None,
    progress: Progress = logged,
) -> list[Artifact]:
    """Exports a model with its dense baseline; one in memory is in its own mode again afterwards.

    Example::

        vit = timm.create_model("deit_small_patch16_224", pretrained=True)
        dense, pruned = sait_deploy.export(vit, ExportOptions(densities=("0.6",)))

    Args:
        model: a supported timm model, float32 on the CPU. Its head may be another than timm gave it: the classes are
            counted on its logits. Or what ``load_model`` loaded, from a file or a hub.
        options: what to export; density 0.6 where left out.
        name: what to call one in memory; None for its timm name. One that was loaded has its own.
        progress: called with each step.

    Raises:
        ModelError: it is not supported, or has what export does not carry, such as a forward hook.
        SaitError: what :func:`export_model` raises.
    """
    if isinstance(model, LoadedModel):
        return export_model(model, options, progress)
    known = getattr(model, "pretrained_cfg", None) or {}
    called = name or known.get("architecture") or type(model).__name__
    with in_inference_mode(model):
        return export_model(describe(model, called, WeightsSource.MEMORY, None), options, progress)
