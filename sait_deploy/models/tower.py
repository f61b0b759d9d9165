"""A model as the image tower of a vision-language model."""

from __future__ import annotations

import dataclasses

from sait_deploy.artifacts.tower_info import TowerChoice, tower_words
from sait_deploy.models.families import transformer_of
from sait_deploy.models.registry import LoadedModel


def as_tower(loaded: LoadedModel, choice: TowerChoice) -> LoadedModel:
    """Returns the blocks of a model that a language model reads the output of, without what comes after them.

    Args:
        loaded: the model, which is no tower yet.
        choice: which layer's tokens are taken.

    Returns:
        The tower; its geometry is that of the blocks that run, and the last of ``weights.notes`` says what is taken.

    Raises:
        InvalidArgument: there is no such layer, or nothing behind it is normed as asked.
    """
    transformer = transformer_of(loaded.vit)
    depth = transformer.depth
    choice = choice.counted_from_last(depth)
    vit = transformer.tower(choice.blocks(depth), normed=choice.vision_feature_layer is None)
    geometry = transformer_of(vit).shape().geometry
    info = dataclasses.replace(
        loaded.info,
        parameters=sum(parameter.numel() for parameter in vit.parameters()),
        classes=0,
        labels=None,
        labels_source=None,
        geometry=geometry,
        tower=choice,
    )
    note = f"the answer is the {tower_words(choice, geometry.width, geometry.prefix_tokens)}"
    if geometry.depth < depth:
        note += f"; {geometry.depth} of {depth} blocks run"
    weights = dataclasses.replace(loaded.weights, notes=(*loaded.weights.notes, note))
    return dataclasses.replace(loaded, vit=vit, info=info, weights=weights)
