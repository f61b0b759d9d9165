"""Models as embedders: what is embedded of each family, what becomes of heads, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F

from sait_deploy.artifacts.manifest import Head, Task, WeightsSource
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.embedder import for_task
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.models.registry import LoadedModel, describe
from sait_deploy.tokens import Score
from tests.tiny import Model, family, images_for, randomised, small_vit


def loaded(vit: Model, name: str = "small") -> LoadedModel:
    """A model as it is loaded from memory."""
    return describe(vit, name, WeightsSource.MEMORY, None)


def embeddings(model: LoadedModel, vit: Model, kept: int | None = None) -> torch.Tensor:
    """What a model answers, dense or with so many patch tokens."""
    pruning = None if kept is None else FixedPruning(Score.MEAN, 1, kept)
    with torch.inference_mode():
        return PrunableViT(model.vit, pruning, task=model.info.task).trace(images_for(vit)).logits


@pytest.mark.parametrize(
    "name", ["deit-distilled", "siglip", "average-no-class-token", "class-and-mean", "dinov3", "vit"]
)
def test_an_embedding_is_what_the_classifier_reads_at_unit_length(name: str) -> None:
    vit = family(name)
    given = loaded(vit)
    has_head = given.info.classes > 0
    model = for_task(given, Task.EMBED)
    with torch.inference_mode():
        read = vit.forward_head(vit.forward_features(images_for(vit)), pre_logits=True)
    assert model.info.embedding is not None and model.info.task is Task.EMBED
    assert model.info.embedding.head is (Head.CLASSIFIER if has_head else Head.NONE)
    assert (model.info.classes, model.info.labels, model.info.embedding.width) == (0, None, read.shape[1])
    torch.testing.assert_close(embeddings(model, vit), F.normalize(read), rtol=1e-4, atol=1e-5)
    pruned = embeddings(model, vit, kept=5)
    torch.testing.assert_close(pruned.norm(dim=1), torch.ones(len(pruned)), rtol=1e-5, atol=0)
    assert any("classes is left out" in note for note in model.weights.notes) is has_head
    assert model.weights.sha256 == given.weights.sha256
    if has_head:
        assert model.info.geometry.readout_macs < given.info.geometry.readout_macs
        assert model.info.parameters < given.info.parameters
        own = dict(vit.named_parameters())
        assert all(parameter is own[key] for key, parameter in model.vit.named_parameters())
    assert loaded(vit).info == given.info, "the model itself stays as it is"


def test_the_projection_of_a_tower_is_part_of_its_embedding() -> None:
    name = "vit_base_patch16_clip_quickgelu_224"
    sizes = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3}
    vit = randomised(timm.create_model(name, num_classes=512, **sizes))
    model = for_task(loaded(vit, f"timm/{name}.openai"), Task.EMBED)
    assert model.info.embedding is not None
    assert (model.info.embedding.width, model.info.embedding.head) == (512, Head.PROJECTION)
    with torch.inference_mode():
        torch.testing.assert_close(embeddings(model, vit), F.normalize(vit(images_for(vit))), rtol=1e-4, atol=1e-5)
    assert "assumed from the name" in model.weights.notes[-1]
    told = for_task(loaded(vit, name), Task.EMBED, Head.CLASSIFIER)
    assert told.info.embedding is not None and told.info.embedding.width == 48
    tuned = randomised(timm.create_model(name, num_classes=7, **sizes))
    other = for_task(loaded(tuned, name), Task.EMBED).info.embedding
    assert other is not None and other.head is Head.CLASSIFIER


def test_a_head_that_is_said_to_project_is_kept() -> None:
    vit = small_vit()
    model = for_task(loaded(vit), Task.EMBED, Head.PROJECTION)
    assert model.info.embedding is not None and model.info.embedding.width == 10
    assert "as you say" in model.weights.notes[-1]
    by_file = dataclasses.replace(loaded(vit), head=Head.PROJECTION)
    assert "by config.json" in for_task(by_file, Task.EMBED).weights.notes[-1]
    assert for_task(by_file).info.task is Task.CLASSIFY


def test_without_a_task_a_head_decides() -> None:
    assert for_task(loaded(small_vit())).info.task is Task.CLASSIFY
    bare = loaded(small_vit(num_classes=0))
    assert for_task(bare).info.task is Task.EMBED
    assert for_task(bare, Task.FEATURES).info.task is Task.FEATURES
    assert for_task(for_task(bare)) == for_task(bare)


@pytest.mark.parametrize(
    ("classes", "task", "head", "message"),
    [
        (0, Task.CLASSIFY, None, "no head to classify with"),
        (10, Task.FEATURES, None, "for models without a head"),
        (10, None, Head.PROJECTION, "part of an embedding"),
        (10, Task.CLASSIFY, Head.CLASSIFIER, "part of an embedding"),
        (10, Task.EMBED, Head.NONE, "a head of 10 outputs"),
        (0, Task.EMBED, Head.PROJECTION, "no head"),
    ],
)
def test_what_a_model_cannot_answer_is_refused(
    classes: int, task: Task | None, head: Head | None, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        for_task(loaded(small_vit(num_classes=classes)), task, head)


def test_an_embedder_stays_one() -> None:
    model = for_task(loaded(small_vit()), Task.EMBED)
    for task, head in ((Task.CLASSIFY, None), (Task.EMBED, Head.PROJECTION)):
        with pytest.raises(InvalidArgument, match="already"):
            for_task(model, task, head)


def test_features_that_are_zero_have_no_direction() -> None:
    vit = small_vit(num_classes=0, final_norm=False)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
    assert not embeddings(for_task(loaded(vit)), vit).any()
