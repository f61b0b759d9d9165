"""How a model is pruned: its score, its block, and how many tokens are kept; and whether a model can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from torch import nn

from sait_deploy.errors import InvalidArgument
from sait_deploy.models.families import transformer_of
from sait_deploy.plugins.mass_token_select.threshold import check_threshold
from sait_deploy.system.option_values import check_options
from sait_deploy.tokens import Geometry, Score


@dataclass(frozen=True, slots=True)
class AdaptivePruning:
    """Every image keeps its own number of patch tokens, by the mass and limits that are given when the model runs.

    Attributes:
        score: how importance is read off the attention.
        prune_at: index of the block after whose attention, before whose MLP, tokens are dropped.
        threshold: multiple of uniform importance that a token must hold beyond the least that are kept; None for no
            such rule.
    """

    score: Score
    prune_at: int
    # An export's id is made of this text and of the threshold, where there is one.
    threshold: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class FixedPruning:
    """Every image keeps the same number of patch tokens.

    Attributes:
        score: how importance is read off the attention.
        prune_at: index of the block after whose attention, before whose MLP, tokens are dropped.
        kept: patch tokens kept per image.
    """

    score: Score
    prune_at: int
    kept: int

    def __post_init__(self) -> None:
        check_options(self)


Pruning: TypeAlias = FixedPruning | AdaptivePruning


def check_pruning(model: nn.Module, pruning: Pruning) -> None:
    """Checks that a pruning fits a model.

    Raises:
        ModelError: the model is not supported.
        InvalidArgument: no such block, no class token to score by, a threshold that no token can reach, or more tokens
            to keep than there are.
    """
    shape = transformer_of(model).shape()
    depth = shape.geometry.depth
    if not 0 <= pruning.prune_at < depth:
        raise InvalidArgument(
            f"prune_at {pruning.prune_at} is no block of a model of depth {depth}", f"give 0 to {depth - 1}"
        )
    if pruning.score is Score.CLS and not shape.has_class_token:
        raise InvalidArgument("score 'cls' needs a class token, which this model has not", "use --score mean")
    if isinstance(pruning, AdaptivePruning) and pruning.threshold is not None:
        check_threshold(pruning.threshold, shape.patches)
    if isinstance(pruning, FixedPruning) and not 1 <= pruning.kept <= shape.patches:
        raise InvalidArgument(f"{pruning.kept} of {shape.patches} patch tokens cannot be kept")


def check_blocks(geometry: Geometry, blocks: tuple[int, ...]) -> None:
    """Checks that a model has blocks whose tokens are asked for.

    Raises:
        InvalidArgument: it has not.
    """
    for block in blocks:
        if not 0 <= block < geometry.depth:
            raise InvalidArgument(
                f"features of block {block}: the model has {geometry.depth} blocks", f"give 0 to {geometry.depth - 1}"
            )
