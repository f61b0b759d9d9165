"""The differentiable forward pass: the deployed model's arithmetic and selection, with gradients and dropout."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sait_deploy.errors import ModelError
from sait_deploy.models.families import transformer_of
from sait_deploy.models.layers import token_importance
from sait_deploy.models.pruning import AdaptivePruning, check_pruning
from sait_deploy.models.transformer import Layout
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training.layouts import differentiable


class Pass(NamedTuple):
    """What a training pass computed.

    Attributes:
        logits: [B, classes].
        importance: float32 [B, N], of the block pruned in.
        density: kept share of the batch's patch tokens; None where nothing was dropped.
    """

    logits: Tensor
    importance: Tensor
    density: float | None = None


class Student(nn.Module):
    """A model that trains dense and sparse. Its parameters are the model's own; none is added.

    Args:
        vit: the model; its modules are used as they are.
        score: how importance is read off the attention.
        prune_at: block after whose attention, before whose MLP, tokens are dropped.

    Raises:
        ModelError: the model is not supported, or drops patches at random.
        InvalidArgument: no such block, or no class token to score by.
    """

    def __init__(self, vit: nn.Module, score: Score, prune_at: int) -> None:
        super().__init__()
        self.transformer = transformer_of(vit)
        if self.transformer.drops_patches():
            raise ModelError(
                "a model that drops patches at random cannot learn to choose them", "set patch_drop_rate 0"
            )
        check_pruning(vit, AdaptivePruning(score, prune_at))
        self.vit = vit
        shape = self.transformer.shape()
        self.prefix, self.patches = shape.prefix, shape.patches
        self.score = score
        self.prune_at = prune_at

    def forward(self, images: Tensor, point: OperatingPoint | None) -> Pass:
        """Classifies a batch.

        Args:
            images: float32 [B, C, H, W], normalised.
            point: what every image keeps from the block's MLP on, within limits from 1 to N; None for all.
        """
        model, batch = self.transformer, len(images)
        layout: Layout
        layout = whole = differentiable(images.device).uniform.of(batch, self.prefix + self.patches, images.device)
        tokens = model.run(model.embed(images), whole, 0, self.prune_at)
        tokens, weights = model.scored(self.prune_at, tokens, whole)
        importance, density = token_importance(weights, self.prefix, self.score), None
        if point is not None:
            kept, layout = self._kept(importance, point)
            tokens, density = tokens.rows(kept), (len(kept) / batch - self.prefix) / self.patches
        x = model.normed(model.run_rest(self.prune_at, tokens, layout).x)
        return Pass(model.readout(x, layout), importance, density)

    def _kept(self, importance: Tensor, point: OperatingPoint) -> tuple[Tensor, Layout]:
        """Returns the flat indices, int32 [T], of the tokens that the deployed selection keeps, and their layout."""
        batch, device = len(importance), importance.device
        mass = torch.full((batch,), point.mass, dtype=torch.float32, device=device)
        limits = torch.tensor([[point.min_keep, point.max_keep]], dtype=torch.int32, device=device).repeat(batch, 1)
        keep, counts = mass_token_select(importance.detach().float(), mass, limits, self.prefix)
        fixed = self.prefix + point.max_keep if point.min_keep == point.max_keep else None
        return differentiable(device).of_kept(keep, counts, fixed)
