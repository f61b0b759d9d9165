"""A manifest names a model: none is fetched unasked, and none is made that is larger than the artifact."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from sait_deploy import Consent, Downloads, RunOptions, load
from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import ArtifactError, ModelError
from sait_deploy.evaluation.sources import ArtifactSource
from sait_deploy.exporting.inspect import compare_with_torch
from sait_deploy.models.original import original_model
from tests.exported import TinyExport, copied

GIANT = "vit_gigantic_patch14_clip_224"
FETCHED = {
    "hub": ({"made_from": "someone/a-vit"}, "pretrained"),
    "prefixed": ({"made_from": "hf-hub:someone/a-vit@main"}, "pretrained"),
    "timms-hub": ({"name": "hf-hub:timm/vit_tiny_patch16_224.augreg_in21k"}, "pretrained"),
    "timm": ({"name": "test_vit.r160_in1k"}, "pretrained"),
    "address": ({"name": "vit_giant_patch16_gap_224.in22k_ijepa"}, "pretrained"),
    "unnamed": ({"name": "someone/a-vit"}, "random"),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was looked up; the hub's cache is empty."""
    import huggingface_hub

    asked = []

    def refuse(*arguments: Any, **named: Any) -> NoReturn:
        asked.append(str(arguments))
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return asked


def named(artifact: Artifact, folder: Path, model: dict[str, str], source: str) -> Artifact:
    """A copy of an artifact whose manifest names another model."""
    copy = copied(artifact, folder)
    file = copy.path / "manifest.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["model"] |= model
    data["weights"] |= {"source": source, "origin": None}
    file.write_text(json.dumps(data), encoding="utf-8")
    return open_artifact(copy.path)


@pytest.mark.parametrize("case", FETCHED)
def test_nothing_is_fetched_unasked(tiny: TinyExport, tmp_path: Path, case: str, no_network: list[str]) -> None:
    artifact = named(tiny.dense, tmp_path, *FETCHED[case])
    with pytest.raises(ModelError) as caught:
        original_model(artifact.manifest, folder=artifact.path)
    assert case == "unnamed" or "--download" in caught.value.hint, caught.value
    assert no_network == []


def test_what_the_user_asks_for_is_fetched(tiny: TinyExport, tmp_path: Path, no_network: list[str]) -> None:
    artifact = named(tiny.dense, tmp_path, *FETCHED["hub"])
    with pytest.raises(ModelError, match="cannot be had"):
        load(artifact, "torch", RunOptions(consent=Consent(downloads=Downloads.ALLOWED)))
    assert no_network


def test_no_door_fetches_or_makes_a_giant(
    tiny_adaptive: Artifact, tmp_path: Path, no_network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object, **__: object) -> NoReturn:
        raise AssertionError("memory is taken for a model that is larger than the artifact")

    monkeypatch.setattr(torch.nn.init, "trunc_normal_", nothing)
    named_ones = {
        name: named(tiny_adaptive, tmp_path / name, model, source)
        for name, (model, source) in {"hub": FETCHED["hub"], "giant": ({"name": GIANT}, "random")}.items()
    }
    for name, artifact in named_ones.items():
        for door in (
            lambda one: load(one, "torch"),
            lambda one: compare_with_torch(one, None, None),
            lambda one: ArtifactSource(one, "onnxruntime", RunOptions()).in_torch(),
        ):
            with pytest.raises(ModelError, match="not on this machine" if name == "hub" else "parameters, where"):
                door(artifact)
    assert no_network == []


@pytest.mark.parametrize("source", [WeightsSource.FILE, WeightsSource.RANDOM])
def test_a_name_of_a_larger_model_is_refused_before_it_is_made(
    tiny: TinyExport, tmp_path: Path, source: WeightsSource
) -> None:
    artifact = named(tiny.dense, tmp_path, {"name": GIANT}, source)
    weights = tiny.weights if source is WeightsSource.FILE else None
    with pytest.raises(ModelError, match=rf"^{GIANT} has \d{{10}} parameters, where what was exported from it has"):
        original_model(artifact.manifest, weights, artifact.path)


def test_a_folder_of_a_larger_model_is_refused_before_it_is_read(tiny: TinyExport, tmp_path: Path) -> None:
    giant = tmp_path / "giant"
    giant.mkdir()
    data = {"architectures": ["ViTModel"], "model_type": "vit", "hidden_size": 8192, "num_hidden_layers": 100}
    (giant / "config.json").write_text(json.dumps({**data, "num_attention_heads": 64, "intermediate_size": 32768}))
    (giant / "model.safetensors").write_bytes(b"not read")
    artifact = named(tiny.dense, tmp_path, {"made_from": str(giant)}, "random")
    manifest = artifact.manifest
    weights = dataclasses.replace(manifest.weights, source=WeightsSource.FILE, origin=str(giant))
    with pytest.raises(ModelError, match=r"^giant has \d{11} parameters, where"):
        original_model(dataclasses.replace(manifest, weights=weights), folder=artifact.path)


def test_a_manifest_that_claims_the_giants_size_is_refused(tiny: TinyExport, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="says 2000000000 parameters, and its files hold"):
        named(tiny.dense, tmp_path, {"name": GIANT, "parameters": 2 * 10**9}, "random")  # type: ignore[dict-item]
