"""Other adaptive artifacts of the same weights, to find out whether another block or score suits them better."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from sait_deploy.artifacts.points import PointRequest
from sait_deploy.artifacts.tuned_points import points_path
from sait_deploy.errors import ArtifactError
from sait_deploy.evaluation.tune_results import Search
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.families import transformer_of
from sait_deploy.models.original import original_model
from sait_deploy.models.registry import LoadedModel
from sait_deploy.system.progress import Progress
from sait_deploy.tokens import Score

_DEPTHS: Final = ((1, 4), (1, 3), (1, 2), (2, 3))
"""Shares of the depth to prune at: a later block saves less, and needs less of weights never trained sparse."""


@dataclass(frozen=True, slots=True)
class SearchExports:
    """What is compared with the artifact given: the model, and what each further artifact is exported with."""

    given: Artifact
    model: LoadedModel
    exports: tuple[ExportOptions, ...]


def list_exports(given: Artifact, search: Sequence[Search]) -> SearchExports:
    """Loads the weights that an artifact names and lists the artifacts to compare it with.

    Args:
        given: an adaptive artifact.
        search: what may differ from it, one or both.

    Raises:
        ModelError: its weights cannot be had.
        ArtifactError: they are others now.
    """
    manifest, pruning = given.manifest, given.manifest.pruning
    assert pruning is not None
    model = _model_of(given)
    depth = manifest.model.geometry.depth
    blocks = {depth * part // whole for part, whole in _DEPTHS} if Search.PRUNE_AT in search else set()
    scores = tuple(Score) if Search.SCORE in search else (pruning.score,)
    known = [score for score in scores if score is not Score.CLS or transformer_of(model.vit).shape().has_class_token]
    own = pruning.score, pruning.prune_at
    pairs = [pair for pair in itertools.product(known, sorted(blocks | {pruning.prune_at})) if pair != own]
    return SearchExports(given, model, tuple(_options(given, score, block) for score, block in pairs))


def make_exports(search: SearchExports, progress: Progress) -> list[Artifact]:
    """Exports the further artifacts beside the one given; one that is there already is opened.

    What was exported last stays what it was.

    Returns:
        The one given, then the others.

    Raises:
        ParityError, StorageError: as exporting does.
    """
    workspace = Workspace(search.given.path.parent)
    before = _last_export(workspace) or [search.given.path]
    made = [search.given]
    try:
        for options in search.exports:
            planned = plan_exports(search.model, options)[-1]
            place = workspace.find(planned.id)
            if place is not None:
                progress(f"{planned.name}: already there")
                made.append(open_artifact(place))
            else:
                made.append(export_model(search.model, options, progress)[-1])
    finally:
        workspace.record_last_export(before)
    return made


def make_last_export(artifact: Artifact) -> None:
    """Makes an artifact and its baseline, where that is beside it, what was exported last: the default of commands."""
    workspace = Workspace(artifact.path.parent)
    baseline = workspace.find(artifact.manifest.baseline or artifact.manifest.id)
    workspace.record_last_export([place for place in (baseline, artifact.path) if place is not None])


def _last_export(workspace: Workspace) -> list[Path]:
    try:
        return workspace.last_export()
    except ArtifactError:
        return []


def _model_of(artifact: Artifact) -> LoadedModel:
    manifest = artifact.manifest
    loaded = original_model(manifest, folder=artifact.path)
    return dataclasses.replace(
        loaded, info=manifest.model, weights=manifest.weights, preprocessing=manifest.preprocessing
    )


def _options(given: Artifact, score: Score, prune_at: int) -> ExportOptions:
    """Returns what exports an artifact like the one given, but for score and block."""
    manifest, pruning = given.manifest, given.manifest.pruning
    assert pruning is not None
    exported = [info for info in pruning.points if not points_path(given.path, info.name).is_file()]
    return ExportOptions(
        points=tuple(PointRequest.of(info.name, info.point) for info in exported),
        score=score,
        prune_at=prune_at,
        precision=manifest.dtype,
        opset=manifest.opset,
        operators=OperatorForm.INLINE if manifest.inlined else OperatorForm.FUNCTION,
        outputs=manifest.asked_outputs,
        feature_blocks=manifest.feature_blocks,
        threshold=pruning.threshold,
        output=given.path.parent,
    )
