"""What a training delivers goes on through the toolkit: loaded, exported, and run with torch's own answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sait_deploy import runtime
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.preprocess import list_images, preprocess
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.models.weights import SparseTraining
from sait_deploy.tokens import Score
from sait_deploy.training.options import DensityRange, Head
from sait_deploy.training.train import train
from tests.tiny import HALF
from tests.training.small import COLOURS, options, quiet

SIZE = 96


@pytest.mark.slow
def test_a_trained_checkpoint_is_loaded_and_exported_with_torchs_answers(folder: Path, tmp_path: Path) -> None:
    begun = load_model("test_vit", WeightsRequest(WeightsSource.RANDOM), SIZE)
    chosen = options(folder, tmp_path / "out", head=Head.NEW, prune_at=2, densities=DensityRange(0.4, 0.9))
    result = train(begun, None, chosen, quiet)
    loaded = load_model("test_vit", WeightsRequest(WeightsSource.FILE, result.weights), SIZE)
    assert loaded.weights.trained_sparse
    assert loaded.training == result.training == SparseTraining(Score.MEAN, 2, 0.4, 0.9)
    assert loaded.info.classes == 3
    assert loaded.info.labels == tuple(COLOURS)

    found = list_images(folder / "val")
    images = preprocess(found.paths, loaded.preprocessing)
    artifacts = export_model(loaded, ExportOptions(densities=(HALF,), prune_at=2, output=tmp_path / "artifacts"))
    for artifact, pruning in zip(artifacts, (None, FixedPruning(Score.MEAN, 2, 18)), strict=True):
        assert artifact.manifest.weights.trained_sparse
        assert artifact.manifest.model.labels == tuple(COLOURS)
        with torch.no_grad():
            wanted = PrunableViT(loaded.vit, pruning)(torch.from_numpy(images))[0].numpy()
        answered = runtime.load(artifact).run(images)
        np.testing.assert_allclose(answered.logits, wanted, rtol=1e-3, atol=1e-4)
        assert np.array_equal(answered.logits.argmax(axis=1), wanted.argmax(axis=1))
        assert set(answered.kept.tolist()) == {36 if pruning is None else 18}
        assert (wanted.argmax(axis=1) == np.array(found.labels)).mean() > 0.6, "answers of a model that learnt nothing"
