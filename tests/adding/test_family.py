"""A family added from outside: an entry in the table and a module, from its checkpoint to ONNX Runtime and training."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models import families
from sait_deploy.models.creation import model_entry, supported_names
from sait_deploy.models.families import Family
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.registry import ONNXRUNTIME, TORCH
from sait_deploy.tokens import dense_macs
from sait_deploy.training.train import train
from tests.adding.rotary_family import CLASSES, NAME, RotaryModel
from tests.tiny import random_batch, randomised
from tests.training.small import options, quiet, squares

PRUNE_AT = 0


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """The model, loaded by name from a checkpoint in names of another library's."""
    module = "tests.adding.rotary_family"
    entry = Family("the outsider", (f"{module}.RotaryModel",), module, "RotaryTransformer")
    monkeypatch.setitem(families.FAMILIES, "outside", entry)
    weights = randomised(RotaryModel(), seed=1).state_dict()
    weights["blocks.0.query.weight"].mul_(30)  # sharp attention, so that images differ in how many tokens they keep
    path = tmp_path / "outside.safetensors"
    save_file({name.replace("blocks.", "encoder.layer."): tensor for name, tensor in weights.items()}, path)
    loaded = load_model(NAME, WeightsRequest(WeightsSource.FILE, path))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.vit.state_dict().items())
    return loaded


def test_it_is_in_the_table(model: LoadedModel) -> None:
    assert NAME in supported_names("rotary")
    assert model_entry(NAME).image_size == 32
    assert model.info.classes == CLASSES
    assert model.info.timm_class == "RotaryModel"
    assert dense_macs(model.info.geometry) > 0


def test_its_exports_answer_as_its_own_forward_pass(model: LoadedModel, tmp_path: Path) -> None:
    exported = export_model(
        model,
        ExportOptions(
            densities=(Decimal("0.5"),), points=(mass_point(0.6),), prune_at=PRUNE_AT, output=tmp_path / "artifacts"
        ),
    )
    assert [artifact.manifest.form.value for artifact in exported] == ["dense", "density", "adaptive"]
    images = random_batch((8, 3, 32, 32))
    counts = set()
    for artifact in exported:
        assert open_artifact(artifact.path).manifest == artifact.manifest, "its graph has operators that are allowed"
        runner = load(artifact, ONNXRUNTIME, options=RunOptions(threads=1))
        reference = load(artifact, TORCH, options=RunOptions(threads=1))
        keep = None
        if artifact.manifest.pruning is not None:
            keep = torch.from_numpy(reference.select(images).keep).bool()
            counts.update(keep.sum(1).tolist())
        with torch.no_grad():
            wanted = model.vit(torch.from_numpy(images), PRUNE_AT, keep).numpy()
        for one in (runner, reference):
            np.testing.assert_allclose(one.run(images).logits, wanted, rtol=1e-4, atol=1e-4)
    assert len(counts) > 2, "images that all keep as many tokens prove little"


def test_it_trains(model: LoadedModel, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.vit.state_dict().items()}
    chosen = options(squares(tmp_path / "data", 8, 2), tmp_path / "trained", recipe={"epochs": 1, "warmup_epochs": 0})
    result = train(model, None, chosen, quiet)
    assert result.log[0].sparse_steps > 0
    assert np.isfinite(result.log[0].loss)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.vit.state_dict().items())
