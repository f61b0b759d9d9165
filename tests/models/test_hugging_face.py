"""Folders that transformers writes answer as its own classes do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sait_deploy.errors import InvalidArgument
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.models.registry import load_model
from sait_deploy.tokens import Score
from tests.models.transformers_folders import (
    MODELS,
    OWN,
    TOLERANCE,
    answer,
    answers,
    change,
    images_of,
    written,
)
from tests.tiny import relative_difference


@pytest.mark.parametrize("name", MODELS)
def test_every_class_answers_as_transformers(transformers: Any, name: str, tmp_path: Path) -> None:
    reference = written(transformers, name, tmp_path / "a model")
    loaded = load_model(str(tmp_path / "a model"), OWN)
    images = images_of(loaded)
    wanted = answer(reference, images)
    assert wanted.std() > 0.1
    for form, found in answers(loaded, images).items():
        assert relative_difference(found, wanted) < TOLERANCE, form
    if "id2label" in MODELS[name][1]:
        assert loaded.info.labels == ("cat", "dog, wet", "heron")
        assert loaded.info.labels_source == "read from config.json"


@torch.no_grad()
def test_a_dropped_patch_is_not_in_the_mean(transformers: Any, tmp_path: Path) -> None:
    """DINOv2's classifier reads the mean of the patches that are kept, each image's own."""
    written(transformers, "dinov2-registers-classes", tmp_path)
    loaded = load_model(str(tmp_path), OWN)
    images, limits = images_of(loaded), torch.tensor([[3, 3], [9, 9], [16, 16]], dtype=torch.int32)
    pruned = PrunableViT(loaded.vit, AdaptivePruning(Score.MEAN, 1))
    together = pruned(images, torch.ones(3), limits)[0]
    for image, limit, logits in zip(images, limits, together, strict=True):
        fixed = PrunableViT(loaded.vit, FixedPruning(Score.MEAN, 1, int(limit[0])))(image[None])[0]
        assert relative_difference(logits[None], fixed) < TOLERANCE
    assert relative_difference(together[:1], loaded.vit(images[:1])) > 100 * TOLERANCE


@pytest.mark.parametrize("form", ["sharded", "pickled", "pickled shards", "old names", "other files beside"])
def test_folders_as_people_have_them(transformers: Any, tmp_path: Path, form: str) -> None:
    name = "clip-vision" if form == "old names" else "vit"
    reference = written(transformers, name, tmp_path, max_shard_size="40KB" if "shard" in form else "5GB")
    whole = tmp_path / "model.safetensors"
    if form == "sharded":
        assert (tmp_path / "model.safetensors.index.json").is_file()
    elif form == "pickled":
        torch.save(load_file(whole), tmp_path / "pytorch_model.bin")
        whole.unlink()
    elif form == "pickled shards":
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        pickled = {one: f"pytorch_{Path(one).stem}.bin" for one in set(index["weight_map"].values())}
        for shard, other in pickled.items():
            torch.save(load_file(tmp_path / shard), tmp_path / other)
            (tmp_path / shard).unlink()
        (tmp_path / "model.safetensors.index.json").unlink()
        renamed = {tensor: pickled[shard] for tensor, shard in index["weight_map"].items()}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": renamed}))
    elif form == "old names":
        positions = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
        save_file({f"vision_model.{n}": t for n, t in load_file(whole).items()} | positions, whole)
    else:
        save_file({"adapter": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
        (tmp_path / "training_args.bin").write_bytes(b"")
    loaded = load_model(str(tmp_path), OWN)
    images = images_of(loaded)
    assert relative_difference(answers(loaded, images)["dense"], answer(reference, images)) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "size"), [("dinov2", 48), ("dinov2-classes", 40), ("dinov2-registers", 16), ("dinov3", 48)]
)
def test_positions_are_resampled_as_transformers_does(transformers: Any, tmp_path: Path, name: str, size: int) -> None:
    reference = written(transformers, name, tmp_path)
    processor = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}}
    processor |= {"crop_size": {"height": size, "width": size}, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    loaded = load_model(str(tmp_path), OWN)
    assert loaded.info.image_size == loaded.default_image_size == (size, size)
    assert loaded.preprocessing.resize == (64, 64)
    assert any("resampled" in note for note in loaded.weights.notes) == (name != "dinov3")
    images = images_of(loaded)
    with torch.no_grad():
        found = PrunableViT(loaded.vit, None)(images)[0]
    assert relative_difference(found, answer(reference, images)) < TOLERANCE


def test_an_image_size_may_be_chosen(transformers: Any, tmp_path: Path) -> None:
    reference = written(transformers, "vit", tmp_path)
    loaded = load_model(str(tmp_path), OWN, 48)
    images = images_of(loaded)
    with torch.no_grad():
        wanted = reference(images, interpolate_pos_encoding=True).logits
        assert relative_difference(PrunableViT(loaded.vit, None)(images)[0], wanted) < TOLERANCE
    with pytest.raises(InvalidArgument, match="no multiple"):
        load_model(str(tmp_path), OWN, 50)


def test_preprocessing_is_the_folders_else_assumed(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "clip", tmp_path)
    assumed = load_model(str(tmp_path), OWN)
    assert assumed.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert set(assumed.preprocessing_sources.values()) == {"assumed from the model's type"}
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, image_mean=[0.3, 0.4, 0.5]
    ).save_pretrained(tmp_path)
    found = load_model(str(tmp_path), OWN)
    assert found.preprocessing.mean == (0.3, 0.4, 0.5)
    assert found.preprocessing.resize == (40, 40)
    assert found.preprocessing_sources["mean"] == "read from preprocessor_config.json"


def test_what_is_left_out_or_read_in_place_of_it_is_said(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "clip", tmp_path / "clip")
    notes = " ".join(load_model(str(tmp_path / "clip"), OWN).weights.notes)
    assert "image tower" in notes
    assert "text_model." in notes
    written(transformers, "vit-features", tmp_path / "vit")
    change(tmp_path / "vit", auto_map={"AutoModel": "evil.Model"})
    notes = " ".join(load_model(str(tmp_path / "vit"), OWN).weights.notes)
    assert "pooler.dense.weight" in notes
    assert "class token" in notes
    assert "auto_map" in notes


def test_placeholders_are_no_labels(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    change(tmp_path, id2label={str(i): f"LABEL_{i}" for i in range(3)})
    assert load_model(str(tmp_path), OWN).info.labels is None
