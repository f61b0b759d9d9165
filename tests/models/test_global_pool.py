"""Weights that were fine-tuned with average pooling, as MAE's are: read where that is said, else the error says how."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from sait_deploy import ExportOptions, demo
from sait_deploy.artifacts.manifest import Pooling, WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.original import original_model
from sait_deploy.models.registry import WeightsRequest, load_model
from tests.tiny import randomised, save_weights

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def averaged() -> VisionTransformer:
    return randomised(timm.create_model(NAME, num_classes=5, img_size=64, global_pool="avg"))


@pytest.fixture
def path(averaged: VisionTransformer, tmp_path: Path) -> Path:
    return save_weights(averaged, tmp_path / "w.safetensors")


def test_the_error_of_such_weights_says_how_to_read_them(path: Path) -> None:
    with pytest.raises(ModelError, match=r"norm\.weight is missing.*fc_norm\.weight is not the model's") as caught:
        load_model(NAME, WeightsRequest(WeightsSource.FILE, path), 64)
    assert "--global-pool avg" in caught.value.hint


def test_the_error_of_other_weights_says_how_to_read_them(tmp_path: Path) -> None:
    vit = timm.create_model(NAME, num_classes=5, img_size=64)
    request = WeightsRequest(WeightsSource.FILE, save_weights(vit, tmp_path / "w.safetensors"), global_pool=Pooling.AVG)
    with pytest.raises(ModelError) as caught:
        load_model(NAME, request, 64)
    assert "--global-pool token" in caught.value.hint


def test_such_weights_answer_as_timms_model(path: Path, averaged: VisionTransformer) -> None:
    loaded = load_model(NAME, WeightsRequest(WeightsSource.FILE, path, global_pool=Pooling.AVG), 64)
    assert loaded.info.global_pool is Pooling.AVG
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.vit(images), averaged(images))


def test_an_artifact_knows_how_its_weights_pool(path: Path, averaged: VisionTransformer, tmp_path: Path) -> None:
    loaded = load_model(NAME, WeightsRequest(WeightsSource.FILE, path, global_pool=Pooling.AVG), 64)
    (dense,) = export_model(loaded, ExportOptions(output=tmp_path / "out"))
    assert dense.manifest.model.global_pool is Pooling.AVG
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(original_model(dense.manifest).vit(images), averaged(images))


@pytest.mark.parametrize(("name", "source"), [(demo.NAME, WeightsSource.DEMO), (NAME, WeightsSource.PRETRAINED)])
def test_weights_that_know_their_pooling_take_no_other(name: str, source: WeightsSource) -> None:
    with pytest.raises(InvalidArgument, match="pooling"):
        load_model(name, WeightsRequest(source, global_pool=Pooling.AVG))
