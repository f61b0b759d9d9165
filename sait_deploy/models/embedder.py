"""A model for a task: what of an embedder is the embedding, and what of an image tower is taken."""

from __future__ import annotations

import dataclasses
from typing import Final

import timm

from sait_deploy.artifacts.manifest import EmbeddingInfo, Head, Task
from sait_deploy.artifacts.tower_info import TowerChoice
from sait_deploy.errors import InvalidArgument
from sait_deploy.models.families import transformer_of
from sait_deploy.models.registry import LoadedModel
from sait_deploy.models.tower import as_tower

_TOWERS: Final = ("clip", "pe_core")
"""Parts of timm's names of image towers whose head projects into the space that they share with texts."""

_TUNED: Final = "_ft_in"
"""Part of the tags of such a tower's weights that were tuned to classify."""


def for_task(
    loaded: LoadedModel, task: Task | None = None, head: Head | None = None, tower: TowerChoice | None = None
) -> LoadedModel:
    """Returns a model that answers a task: classes, an embedding, tokens of an image tower, or features as they are.

    Args:
        loaded: the model; one that embeds stays as it is.
        task: what to answer; None to classify with a head, and to embed without one.
        head: what the head is, of a model that embeds; None for what the weights' files or the model's name say.
        tower: what is taken of an image tower; None for what the weights' files say, else the last block's patches.

    Returns:
        The model; of one that embeds, ``info`` has the embedding and no classes, and the last of ``weights.notes`` is
        what was assumed of its head. Of an image tower ``info`` has what is taken of it and no classes.

    Raises:
        InvalidArgument: the model cannot answer that, or the head is not what is said.
    """
    info, has_head = loaded.info, loaded.info.classes > 0
    if info.embedding is not None:
        if task in (None, Task.EMBED) and head in (None, info.embedding.head):
            return loaded
        raise InvalidArgument(f"{info.name} is made to embed already", "load it again for another task")
    if info.tower is not None:
        if task in (None, Task.TOKENS) and head is None and tower in (None, info.tower):
            return loaded
        raise InvalidArgument(f"{info.name} is made an image tower already", "load it again for another task")
    if loaded.tower is not None:
        task, tower = task or Task.TOKENS, tower or loaded.tower
        if task is not Task.TOKENS:
            raise InvalidArgument(f"{info.name} gives tokens alone: it has no pooling", "give --task tokens")
    if tower is not None and task is not Task.TOKENS:
        raise InvalidArgument(
            "--vision-feature-layer and --vision-feature-select-strategy are of an image tower",
            "give --task tokens as well",
        )
    if task is Task.TOKENS:
        if head is not None:
            raise InvalidArgument(f"--head {head} says what is part of an embedding", "leave it out, or --task tokens")
        return as_tower(loaded, tower or TowerChoice())
    chosen = task or (Task.CLASSIFY if has_head else Task.EMBED)
    if chosen is not Task.EMBED:
        _check(loaded, chosen, head)
        return loaded
    if head is not None and has_head == (head is Head.NONE):
        has = f"a head of {info.classes} outputs" if has_head else "no head"
        raise InvalidArgument(f"--head {head} does not fit {info.name}, which has {has}", "leave --head out")
    if not has_head:
        return _embedding(loaded, Head.NONE, None)
    kind = head or (Head.PROJECTION if projects(loaded) else Head.CLASSIFIER)
    return _embedding(loaded, kind, _note(loaded, kind, is_told=head is not None))


def _check(loaded: LoadedModel, task: Task, head: Head | None) -> None:
    """Checks a task that changes nothing of a model."""
    name, has_head = loaded.info.name, loaded.info.classes > 0
    if head is not None:
        raise InvalidArgument(f"--head {head} says what is part of an embedding", "give --task embed as well")
    if task is Task.CLASSIFY and not has_head:
        raise InvalidArgument(f"{name} has no head to classify with", "give --task embed, or leave --task out")
    if task is Task.FEATURES and has_head:
        raise InvalidArgument(
            f"--task features is for models without a head, and {name} has one of {loaded.info.classes} outputs",
            "give --task embed, which leaves a classifier out",
        )


def _embedding(loaded: LoadedModel, head: Head, note: str | None) -> LoadedModel:
    transformer = transformer_of(loaded.vit)
    width = loaded.info.classes if head is Head.PROJECTION else transformer.pooled_width()
    vit = transformer.without_head() if head is Head.CLASSIFIER else loaded.vit
    info = dataclasses.replace(
        loaded.info,
        parameters=sum(parameter.numel() for parameter in vit.parameters()),
        classes=0,
        labels=None,
        labels_source=None,
        geometry=transformer_of(vit).shape().geometry,
        embedding=EmbeddingInfo(width, head),
    )
    notes = loaded.weights.notes if note is None else (*loaded.weights.notes, note)
    return dataclasses.replace(
        loaded, vit=vit, info=info, weights=dataclasses.replace(loaded.weights, notes=notes), head=head
    )


def projects(loaded: LoadedModel) -> bool:
    """Returns whether the head is a projection: by its files, else where timm's tower of that name has one as wide."""
    if loaded.head is not None:
        return loaded.head is Head.PROJECTION
    tower = loaded.info.name.split(":")[-1].split("/")[-1].split(".")[0]
    if not any(part in tower for part in _TOWERS):
        return False
    configs = [timm.get_pretrained_cfg(name) for name in timm.list_pretrained(f"{tower}.*") if _TUNED not in name]
    return loaded.info.classes in {config.num_classes for config in configs if config is not None}


def _note(loaded: LoadedModel, head: Head, *, is_told: bool) -> str:
    """Returns what becomes of the head, in a sentence, and how that is known."""
    outputs, name = loaded.info.classes, loaded.info.name
    how = "as you say" if is_told else "by config.json" if loaded.head is head else f"assumed from the name {name}"
    if head is Head.PROJECTION:
        return f"the head is a projection ({how}): embeddings are its {outputs} outputs"
    if not is_told and loaded.head is None:
        how = "assumed: if it projects into the space of embeddings, give --head projection"
    width = transformer_of(loaded.vit).pooled_width()
    return f"the head of {outputs} classes is left out ({how}): embeddings are the {width} numbers that it reads"
