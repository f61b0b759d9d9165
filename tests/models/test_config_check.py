"""Files beside weights are of the model they are read into, and their names of classes are the model's labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm

from sait_deploy.artifacts.manifest import Pooling, WeightsSource
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from tests.tiny import save_weights

NAMES = ("zebra", "cat", "a dog")


def loaded(folder: Path, config: dict[str, Any], pool: Pooling | None = None) -> LoadedModel:
    """test_vit of three classes, from a file with a configuration beside it."""
    save_weights(timm.create_model("test_vit", num_classes=3), folder / "w.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return load_model("test_vit", WeightsRequest(WeightsSource.FILE, folder / "w.safetensors", global_pool=pool))


@pytest.mark.parametrize(
    "config",
    [
        {"label_names": list(NAMES)},
        {"pretrained_cfg": {"label_names": list(NAMES)}},
        {"id2label": {"2": "a dog", "0": "\ufeffzebra", "1": "cat "}},
    ],
)
def test_names_of_classes_are_labels_and_their_file_is_kept(tmp_path: Path, config: dict[str, Any]) -> None:
    info = loaded(tmp_path, config).info
    assert info.labels == NAMES
    assert info.labels_source == "read from config.json"


@pytest.mark.parametrize(
    ("config", "source"),
    [
        ({"label_names": ["a", "b"]}, "config.json names 2 classes and the model has 3: they are not used"),
        ({"id2label": []}, "config.json has no names of classes in id2label: it is not used"),
        ({"id2label": 1}, "config.json has no names of classes in id2label: it is not used"),
        ({"label_names": ["a", "b", "c\x1b"]}, "config.json has names that cannot be printed: they are not used"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, None),
        (
            {"id2label": {"1": "a", "2": "b", "3": "c"}},
            "config.json has no names of classes in id2label: it is not used",
        ),
        ({"label_names": None}, None),
        ({"label_names": "abc"}, "config.json has no names of classes in label_names: it is not used"),
    ],
)
def test_names_that_do_not_fit_are_not_used_and_that_is_said(
    tmp_path: Path, config: dict[str, Any], source: str | None
) -> None:
    info = loaded(tmp_path, config).info
    assert info.labels is None
    assert info.labels_source == source


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"global_pool": "avg"}, "whose head reads 'avg', and --model makes one whose head reads 'token'"),
        ({"global_pool": "token", "model_args": {"global_pool": "avg"}}, "whose head reads 'avg'"),
        ({"model_args": {"num_heads": 4}}, "4 attention heads, and --model makes one with 2"),
        ({"num_attention_heads": 8}, "8 attention heads"),
    ],
)
def test_a_file_of_a_model_that_answers_otherwise_is_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        loaded(tmp_path, config)


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        ({"global_pool": "token", "num_attention_heads": 2}, None),
        ({"global_pool": "avg"}, Pooling.TOKEN),
        ({"global_pool": ""}, None),
    ],
)
def test_a_file_that_agrees_or_that_the_user_overrules_is_none(
    tmp_path: Path, config: dict[str, Any], pool: Pooling | None
) -> None:
    assert loaded(tmp_path, config, pool).info.classes == 3


@pytest.mark.parametrize("key", ["act_layer", "hidden_act"])
def test_a_file_of_a_model_with_another_activation_is_refused(tmp_path: Path, key: str) -> None:
    for name in ("quick_gelu", "gelu_pytorch_tanh", "something_new"):
        with pytest.raises(InvalidArgument, match=f"activation '{name}', and --model makes one with GELU"):
            loaded(tmp_path, {key: name})
    assert loaded(tmp_path, {"model_args": {key: "gelu"}}).info.classes == len(NAMES)
