"""Folders of transformers' that would answer otherwise are refused by name, and what changes nothing is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sait_deploy.artifacts.manifest import Pooling, WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.exporting.plan import DEFAULT_OPTIONS, ExportOptions, plan_exports
from sait_deploy.exporting.stage import export, export_model
from sait_deploy.models.original import original_model
from sait_deploy.models.registry import WeightsRequest, load_model
from tests.models.transformers_folders import (
    OWN,
    VIT,
    change,
    images_of,
    written,
)
from tests.tiny import randomised, save_weights


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["ViTMAEForPreTraining"], "model_type": "vit_mae"}, "ViTMAEForPreTraining.*not served"),
        ({"architectures": ["SwinForImageClassification"], "model_type": "swin"}, "Swin.*inside windows"),
        ({"architectures": ["VitDetModel"], "model_type": "vitdet"}, "VitDetModel.*inside windows"),
        ({"architectures": ["PvtModel"], "model_type": "pvt"}, "PvtModel.*several resolutions"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "BertModel"),
        ({"architectures": ["Siglip2VisionModel"], "model_type": "siglip2_vision_model"}, "NaFlex"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"),
        ({"architectures": ["DeiTModel"]}, "DeiTModel.*'vit'"),
        ({"architectures": None}, "names no class"),
        ({"hidden_act": "xielu"}, "hidden_act 'xielu'"),
        ({"qk_norm": True}, "qk_norm True"),
        ({"use_gated_mlp": True}, "use_gated_mlp True"),
        ({"head_dim": 8}, "not of equal width"),
        ({"num_attention_heads": 5}, "5 heads"),
        ({"hidden_size": "48"}, "hidden_size '48'"),
        ({"patch_size": -8}, "patch_size -8"),
        ({"hidden_size": 60000}, "do not fit.*60000"),
        ({"hidden_size": 10**9}, "hidden_size 1000000000"),
        ({"num_hidden_layers": 50000}, "50000 layers"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_channels": 1}, "patch_embed.proj.weight is"),
        ({"num_channels": 2}, "2 channels"),
        ({"id2label": {"0": "cat", "1": "dog"}}, "names 2 classes.*has 3"),
        ({"id2label": {"1": "cat", "2": "dog", "3": "heron"}}, "does not number its classes"),
        ({"num_hidden_layers": 3}, "blocks.2.*missing"),
        ({"architectures": ["Dinov2ForImageClassification"], "model_type": "dinov2"}, "head.weight is"),
        (
            {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "qkv_bias": None},
            "names of Hugging Face's ViT",
        ),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    transformers: Any, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    written(transformers, "vit", tmp_path)
    change(tmp_path, **values)
    with pytest.raises(ModelError, match=said) as caught:
        load_model(str(tmp_path), OWN)
    assert caught.value.hint


def test_old_files_of_two_models(transformers: Any, tmp_path: Path) -> None:
    """They have values of text generation everywhere, and name what they change a second time."""
    written(transformers, "clip", tmp_path)
    tower = json.loads((tmp_path / "config.json").read_text())["vision_config"]
    passing = {"add_cross_attention": False, "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None}
    passing |= {"output_attentions": False, "pruned_heads": {}, "encoder_no_repeat_ngram_size": 0, "dropout": 0.0}
    passing |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "length_penalty": 1.0, "tie_word_embeddings": True}
    wrong = {**tower, **passing, "num_attention_heads": 12}
    change(tmp_path, vision_config=wrong, vision_config_dict={"num_attention_heads": 3})
    assert load_model(str(tmp_path), OWN).vit.blocks[0].attn.num_heads == 3  # type: ignore[index,union-attr]
    change(tmp_path, vision_config={"model_type": "clip_vision_model"}, vision_config_dict=None)
    with pytest.raises(ModelError, match=r"do not fit.*the model's \[1, 50, 768\]"):
        load_model(str(tmp_path), OWN)


def test_values_of_training_and_of_programming_change_nothing(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    change(tmp_path, attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.1, output_attentions=True, qk_norm=False)
    assert load_model(str(tmp_path), OWN).info.classes == 3


@pytest.mark.parametrize("wrong", ["shard", "two", "head", "none", "config", "other config", "code"])
def test_a_folder_that_is_not_whole_is_refused(transformers: Any, tmp_path: Path, wrong: str) -> None:
    written(transformers, "vit", tmp_path, max_shard_size="40KB" if wrong == "shard" else "5GB")
    whole = tmp_path / "model.safetensors"
    if wrong == "shard":
        missing = sorted(tmp_path.glob("model-*.safetensors"))[1]
        missing.unlink()
        said = f"{missing.name}, which is not in its folder"
    elif wrong == "two":
        save_file(load_file(whole) | {"patch_embed.proj.weight": torch.zeros(1)}, whole)
        said = "names of two models"
    elif wrong == "head":
        save_file({n: t for n, t in load_file(whole).items() if "classifier" not in n}, whole)
        said = "have no head"
    elif wrong == "none":
        whole.unlink()
        said = "holds no weights file"
    elif wrong == "config":
        (tmp_path / "config.json").unlink()
        said = "has no config.json"
    elif wrong == "other config":
        (tmp_path / "config.json").write_text("{}")
        said = "neither model_type"
    else:
        whole.unlink()
        (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        said = "pytorch_model.bin"
    with pytest.raises(ModelError, match=said):
        load_model(str(tmp_path), OWN)


def test_a_model_of_transformers_in_memory_is_told_to_be_saved(transformers: Any) -> None:
    model = transformers.ViTModel(transformers.ViTConfig(**VIT))
    with pytest.raises(ModelError, match="ViTModel cannot be pruned") as caught:
        export(model)
    assert "save_pretrained" in caught.value.hint


def test_a_file_is_no_place(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    with pytest.raises(ModelError, match="is a file"):
        load_model(str(tmp_path / "config.json"), OWN)


def test_random_weights_and_a_pooling_are_refused(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    with pytest.raises(ModelError, match="brings its weights"):
        load_model(str(tmp_path), WeightsRequest(WeightsSource.RANDOM))
    with pytest.raises(InvalidArgument, match="says its pooling"):
        load_model(str(tmp_path), WeightsRequest(WeightsSource.DEMO, global_pool=Pooling.AVG))


def test_a_processors_file_holds_preprocessing_too(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "siglip", tmp_path)
    part = {"image_mean": [0.1, 0.2, 0.3], "size": {"height": 32, "width": 32}}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": part}))
    loaded = load_model(str(tmp_path), OWN)
    assert loaded.preprocessing.mean == (0.1, 0.2, 0.3)
    assert loaded.preprocessing_sources["mean"] == "read from processor_config.json"


def test_other_weights_of_the_same_model(transformers: Any, tmp_path: Path) -> None:
    """Weights by timm's names with a new head, as training writes them: the folder says only how the model is made."""
    written(transformers, "vit-odd", tmp_path / "model")
    trained = load_model(str(tmp_path / "model"), OWN).vit
    trained.reset_classifier(5)  # type: ignore[operator]
    (tmp_path / "trained").mkdir()
    file = save_weights(randomised(trained, seed=3), tmp_path / "trained" / "model.safetensors")
    loaded = load_model(str(tmp_path / "model"), WeightsRequest(WeightsSource.FILE, file))
    assert loaded.info.classes == 5
    assert (loaded.weights.origin, loaded.info.made_from) == (str(file), str(tmp_path / "model"))
    images = images_of(loaded)
    with torch.no_grad():
        assert torch.equal(loaded.vit(images), trained(images))
    manifest = export_model(loaded, ExportOptions(output=tmp_path / "artifacts"))[0].manifest
    assert original_model(manifest).weights.sha256 == loaded.weights.sha256


def test_models_that_differ_in_their_configuration_alone_are_different_artifacts(
    transformers: Any, tmp_path: Path
) -> None:
    ids = set()
    for act in ("gelu", "relu", "gelu"):
        written(transformers, "vit", tmp_path / "vit")
        change(tmp_path / "vit", hidden_act=act)
        ids.add(plan_exports(load_model(str(tmp_path / "vit"), OWN), DEFAULT_OPTIONS)[0].id)
    assert len(ids) == 2
