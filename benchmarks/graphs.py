"""Graphs in the place of artifacts', so that every runtime runs them: of other modules, or exported without checks."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path

import torch
from torch import nn

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact, write_manifest
from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import mass_point
from sait_deploy.exporters.finish import FinishOptions, OperatorForm, finish, save
from sait_deploy.exporters.names import KEEP_LIMITS, MASS
from sait_deploy.exporters.trace import TRACED_BATCH, trace
from sait_deploy.exporting.manifest import draft_manifest
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.registry import LoadedModel
from sait_deploy.system.progress import Progress
from sait_deploy.tokens import Score


def graph_in_place(module: nn.Module, manifest: Manifest, folder: Path, progress: Progress) -> Artifact:
    """Exports a module into a folder, where its graph is not there yet.

    Args:
        module: of the inputs and outputs that the manifest names.
        manifest: what the artifact says of itself.
        folder: for the graph and the manifest.
        progress: reports an export.
    """
    place = folder / MODEL_FILE
    if not place.is_file():
        progress(f"exporting {folder.name}")
        further = {}
        if manifest.form is Form.ADAPTIVE:
            limits = [1, manifest.model.geometry.patch_tokens]
            further = {
                MASS: torch.full((TRACED_BATCH,), 0.5),
                KEEP_LIMITS: torch.tensor([limits] * TRACED_BATCH, dtype=torch.int32),
            }
        graph = trace(module, (3, *manifest.model.image_size), manifest.output_names, manifest.opset, further)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"part-{MODEL_FILE}"
        save(finish(graph, FinishOptions(manifest.opset, OperatorForm.FUNCTION, {})), part)
        part.replace(place)
    signed = dataclasses.replace(manifest, files={MODEL_FILE: sha256_of(place)})
    write_manifest(folder, signed)
    return Artifact(folder, signed)


def own_forms(model: LoadedModel, density: Decimal, folder: Path, progress: Progress) -> list[Artifact]:
    """Returns the toolkit's dense, density and adaptive form; unlike an export's, they are not compared with torch."""
    options = ExportOptions((density,), (mass_point(1.0),), score=Score.MEAN)
    plans = plan_exports(model, options)
    found = []
    for plan in plans:
        manifest = draft_manifest(model, options, plan, plans[0])
        module = PrunableViT(model.vit, plan.pruning)
        found.append(graph_in_place(module, manifest, folder / plan.form.value, progress))
    return found
