"""Models by folder and by hub name: found, found again from an artifact, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image

from sait_deploy import demo
from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.cli import run
from sait_deploy.errors import ModelError
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.models.original import original_model
from sait_deploy.models.registry import WeightsRequest, load_model
from tests.models.transformers_folders import (
    OWN,
    change,
    images_of,
    written,
)
from tests.tiny import randomised, save_weights


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a hub's repository, someone/a-vit, in a cache that stands for the network."""
    repository = tmp_path / "cache" / "models--someone--a-vit"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee" * 6 + "cafe")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return repository / "snapshots" / ("c0ffee" * 6 + "cafe")


@pytest.mark.parametrize("name", ["someone/a-vit", "hf-hub:someone/a-vit", "someone/a-vit@main"])
@pytest.mark.parametrize("source", [WeightsSource.DEMO, WeightsSource.PRETRAINED])
def test_a_hub_name_is_found_again_by_its_revision(
    transformers: Any, hub: Path, name: str, source: WeightsSource
) -> None:
    written(transformers, "vit", hub)
    loaded = load_model(name, WeightsRequest(source))
    assert loaded.info.name == "someone/a-vit"
    assert loaded.info.labels == ("cat", "dog, wet", "heron")
    assert loaded.info.made_from == loaded.weights.origin == f"hf-hub:someone/a-vit@{hub.name}"
    assert loaded.weights.source is WeightsSource.PRETRAINED
    if name == "someone/a-vit" and source is WeightsSource.DEMO:
        manifest = export_model(loaded, ExportOptions())[0].manifest
        assert manifest.name == "someone_a_vit-dense"
        assert original_model(manifest).weights.sha256 == loaded.weights.sha256


def test_a_hubs_repository_of_timms_is_timms_as_before(hub: Path) -> None:
    vit = randomised(timm.create_model("test_vit", num_classes=5))
    hub.mkdir(parents=True)
    save_weights(vit, hub / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 5, "pretrained_cfg": vit.pretrained_cfg}
    (hub / "config.json").write_text(json.dumps(config))
    for name in ("someone/a-vit", "hf-hub:someone/a-vit"):
        loaded = load_model(name, WeightsRequest(WeightsSource.PRETRAINED))
        assert (loaded.info.name, loaded.info.made_from) == ("hf-hub:someone/a-vit", None)
        assert (loaded.weights.source, loaded.weights.origin) == (WeightsSource.PRETRAINED, "someone/a-vit")
        assert torch.equal(loaded.vit.head.weight, vit.head.weight)  # type: ignore[union-attr,arg-type]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["someone/another", "hf-hub:someone/another"])
def test_a_hub_name_without_a_network_is_one_line(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name, OWN)
    assert caught.value.message.startswith(f"pretrained weights of {name} cannot be had")
    assert "\n" not in caught.value.message
    assert ("no folder" in caught.value.message) == (name == "someone/another")


@pytest.mark.parametrize("name", ["./nothing", "some where/else/there", "local-dir:nothing", "hf-hub:nothing"])
def test_a_place_that_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no"):
        load_model(name, OWN)


@pytest.mark.parametrize("name", ["./deit_tiny_patch16_224", "local-dir:deit_tiny_patch16_224"])
def test_a_folder_of_timms(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration names timm's model, whose classes, pooling and image size are those of the folder."""
    vit = randomised(timm.create_model("test_vit", num_classes=5, img_size=64, global_pool="avg"))
    folder = tmp_path / "deit_tiny_patch16_224"
    folder.mkdir()
    save_weights(vit, folder / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 5, "global_pool": "avg", "model_args": {"img_size": 64}}
    (folder / "config.json").write_text(json.dumps({**config, "label_names": list("abcde")}))
    monkeypatch.chdir(tmp_path)
    loaded = load_model(name, OWN)
    assert (loaded.info.name, loaded.info.made_from, loaded.info.labels) == ("test_vit", None, tuple("abcde"))
    images = images_of(loaded)
    with torch.no_grad():
        assert torch.equal(loaded.vit(images), vit(images))
    change(folder, model_args={"act_layer": "relu"})
    with pytest.raises(ModelError, match="act_layer 'relu', which no name says"):
        load_model(name, OWN)


def test_the_command_line_takes_a_folder_and_the_artifact_finds_it_again(
    transformers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / "my vit"
    reference = written(transformers, "vit-odd", folder)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3)
    processor.save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    assert called("export", "--model", "models/my vit", "--mass", "0.9") == 0
    assert called("predict", "--artifact", "artifacts/my_vit-dense", "--json", demo.IMAGES / "0" / "0.png") == 0
    (predicted,) = json.loads(capsys.readouterr().out.partition("[")[2].join(("[", "")))
    artifact = open_artifact(tmp_path / "artifacts" / "my_vit-adaptive")
    assert artifact.manifest.model.labels == ("cat", "dog, wet", "heron")
    assert artifact.manifest.preprocessing.mean == (0.4, 0.4, 0.4)
    assert artifact.manifest.model.made_from == artifact.manifest.weights.origin == "models/my vit"
    with Image.open(demo.IMAGES / "0" / "0.png") as image, torch.no_grad():
        pixels = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        wanted = reference(pixels).logits.softmax(dim=1)[0]
    assert predicted["labels"][0] == reference.config.id2label[int(wanted.argmax())]
    assert predicted["probabilities"][0] == pytest.approx(float(wanted.max()), abs=0.02)
    monkeypatch.chdir(folder.parent)
    assert original_model(artifact.manifest, folder=artifact.path).vit.norm.eps == 0.05  # type: ignore[union-attr]
    folder.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="no folder"):
        original_model(artifact.manifest, folder=artifact.path)
    for weights in (tmp_path / "moved", tmp_path / "moved" / "model.safetensors"):
        assert original_model(artifact.manifest, weights).vit.norm.eps == 0.05  # type: ignore[union-attr]


def called(*arguments: object) -> int:
    """Runs the command line and returns its exit code."""
    with pytest.raises(SystemExit) as leaving:
        run([str(argument) for argument in arguments])
    return int(leaving.value.code or 0)
