"""Weights that say how they were trained sparse are exported to be pruned so, unless another way is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.models.weights import SparseTraining, metadata_of
from sait_deploy.runtime import load
from sait_deploy.tokens import Score
from tests.exporting.exports import ONE_THREAD
from tests.tiny import HALF, random_batch, randomised

SIZE, PATCHES = 64, 16
TRAINING = SparseTraining(Score.CLS, 2, 0.4, 0.9)
BOTH = ExportOptions(densities=(HALF,), points=(mass_point(0.7),))


def loaded(folder: Path, training: SparseTraining | None) -> LoadedModel:
    """A model of sixteen patch tokens from a weights file that says how it was trained."""
    vit = randomised(timm.create_model("test_vit", img_size=SIZE, num_classes=3), seed=7)
    path = folder / "model.safetensors"
    save_file(dict(vit.state_dict()), path, metadata_of(training, "abc"))
    return load_model("test_vit", WeightsRequest(WeightsSource.FILE, path), SIZE)


def test_the_block_and_score_of_training_are_those_of_the_artifacts(tmp_path: Path) -> None:
    model = loaded(tmp_path, TRAINING)
    dense, half, adaptive = export_model(model, dataclasses.replace(BOTH, output=tmp_path / "artifacts"))
    assert dense.manifest.pruning is None
    for artifact in (half, adaptive):
        assert artifact.manifest.pruning is not None
        assert (artifact.manifest.pruning.score, artifact.manifest.pruning.prune_at) == (Score.CLS, 2)
    assert [artifact.path.name for artifact in (half, adaptive)] == [
        "test_vit-64px-block2-cls-density0.5",
        "test_vit-64px-block2-cls-adaptive",
    ]
    images = random_batch((3, 3, SIZE, SIZE))
    point = torch.full((3,), 0.7), torch.tensor([[1, PATCHES]] * 3, dtype=torch.int32)
    with torch.no_grad():
        wanted = [
            PrunableViT(model.vit, FixedPruning(Score.CLS, 2, 8))(torch.from_numpy(images)),
            PrunableViT(model.vit, AdaptivePruning(Score.CLS, 2))(torch.from_numpy(images), *point),
        ]
        default = PrunableViT(model.vit, FixedPruning(Score.MEAN, 1, 8))(torch.from_numpy(images))[0].numpy()
    for artifact, (logits, counts) in zip((half, adaptive), wanted, strict=True):
        found = load(artifact, options=ONE_THREAD).run(images)
        np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-3, atol=1e-4)
        assert found.kept.tolist() == (counts - model.vit.num_prefix_tokens).tolist()
    assert np.abs(default - wanted[0][0].numpy()).max() > 1e-2, "both ways answer alike, and the test shows nothing"


@pytest.mark.parametrize("training", [None, TRAINING])
@pytest.mark.parametrize("score", [None, *Score])
@pytest.mark.parametrize("prune_at", [None, 0, 1])
def test_what_is_asked_for_comes_first(
    tmp_path: Path, training: SparseTraining | None, score: Score | None, prune_at: int | None
) -> None:
    known = (Score.MEAN, 1) if training is None else (Score.CLS, 2)  # a quarter of its six blocks, by the mean
    wanted = known[0] if score is None else score, known[1] if prune_at is None else prune_at
    model = loaded(tmp_path, training)
    found = plan_exports(model, dataclasses.replace(BOTH, score=score, prune_at=prune_at))
    for plan in found[1:]:
        assert plan.pruning is not None
        assert (plan.pruning.score, plan.pruning.prune_at) == wanted
    named = plan_exports(model, dataclasses.replace(BOTH, score=wanted[0], prune_at=wanted[1]))
    assert [plan.id for plan in found] == [plan.id for plan in named], "what is pruned alike is one artifact"
    if wanted == (Score.MEAN, 1):
        assert [plan.name for plan in found[1:]] == ["test_vit-64px-density0.5", "test_vit-64px-adaptive"]
