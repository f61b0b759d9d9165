"""A model pruned in two blocks: its parts in torch for answers, the whole as a graph for times, and what it costs."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.peers import chain_macs
from benchmarks.selection_parts import CountRule, Floats
from sait_deploy.models.families import transformer_of
from sait_deploy.models.layers import token_importance
from sait_deploy.models.layouts import Uniform
from sait_deploy.models.transformer import Tokens
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.tokens import Geometry, Score
from sait_deploy.training.layouts import FusedUniform


class Between(nn.Module):
    """Tokens after the attention of the first block pruned in to those after the second's, and importance there.

    Args:
        vit: the model.
        first: the first block.
        second: the second block.
        score: how importance is read off the attention of the tokens that the first block kept.
    """

    def __init__(self, vit: nn.Module, first: int, second: int, score: Score) -> None:
        super().__init__()
        self.vit, self.model = vit, transformer_of(vit)
        self.first, self.second, self.score = first, second, score

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Returns tokens [B, P+K, D] and importance [B, K] of tokens [B, P+K, D]."""
        model, (batch, each, width) = self.model, tokens.shape
        layout = FusedUniform.of(batch, each, tokens.device)
        found = model.fed_forward(self.first, Tokens(tokens.reshape(-1, width)), layout)
        found = model.run(found, layout, self.first + 1, self.second)
        found, weights = model.scored(self.second, found, layout)
        return found.x.reshape(tokens.shape), token_importance(weights, model.shape().prefix, self.score)


class Twice(nn.Module):
    """Every image keeps as many patch tokens in one block, and fewer from a later one on, as the density form does.

    Args:
        vit: the model.
        score: how importance is read off attention.
        kept: patch tokens kept, by block.
    """

    def __init__(self, vit: nn.Module, score: Score, kept: dict[int, int]) -> None:
        super().__init__()
        self.vit, self.score, self.kept = vit.eval(), score, kept
        self.model = transformer_of(vit)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Returns the logits, float32 [B, classes], of images float32 [B, 3, H, W]."""
        model, geometry, batch = self.model, self.model.shape().geometry, images.shape[0]
        layout, tokens = Uniform.of(batch, geometry.tokens, images.device), model.embed(images)
        for block in range(model.depth):
            if block not in self.kept:
                tokens = model.run(tokens, layout, block, block + 1)
                continue
            tokens, weights = model.scored(block, tokens, layout)
            importance = token_importance(weights, geometry.prefix_tokens, self.score)
            each = geometry.prefix_tokens + self.kept[block]
            keep = self._selected(block, importance, geometry.prefix_tokens)
            rows, _ = pack_rows(keep, keep.sum(1, dtype=torch.int32))
            layout = Uniform.of(batch, each, images.device)
            tokens = model.fed_forward(block, tokens.rows(rows[: batch * each]), layout)
        return (model.readout(model.normed(tokens.x), layout).float(),)

    def _selected(self, block: int, importance: Tensor, prefix: int) -> Tensor:
        """Returns which tokens are kept, int32 [B, P+N]; in a later block no two are equal at the edge."""
        kept, batch = self.kept[block], importance.shape[0]
        if block != min(self.kept):  # a graph that exports has one operator of the selection
            edge = importance.topk(kept, dim=1).values[:, -1:]
            return F.pad((importance >= edge).to(torch.int32), (prefix, 0), value=1)
        mass = torch.ones(batch, dtype=torch.float32, device=importance.device)
        limits = torch.full((batch, 2), kept, dtype=torch.int32, device=importance.device)
        keep: Tensor = mass_token_select(importance, mass, limits, prefix)[0]
        return keep


def staged_macs(geometry: Geometry, first: int, second: int, kept: int, kept_later: int) -> int:
    """Returns the multiply-accumulates of an image that is pruned in two blocks.

    Args:
        geometry: the model's sizes.
        first: the first block.
        second: the second block.
        kept: patch tokens that the first keeps.
        kept_later: patch tokens that the second keeps of those.
    """
    full, middle, rest = geometry.tokens, geometry.prefix_tokens + kept, geometry.prefix_tokens + kept_later
    between, after = second - first, geometry.depth - second
    attended = [full] * (first + 1) + [middle] * between + [rest] * (after - 1)
    return chain_macs(geometry, attended, [full] * first + [middle] * between + [rest] * after)


def mean_staged_macs(
    geometry: Geometry, first: int, second: int, counts: NDArray[np.int32], later: NDArray[np.int32]
) -> float:
    """Returns the mean multiply-accumulates of images that keep so many patch tokens, int32 [B] each, in two blocks."""
    pairs, times = np.unique(np.stack([counts, later], axis=1), axis=0, return_counts=True)
    costs = [staged_macs(geometry, first, second, int(kept), int(kept_later)) for kept, kept_later in pairs]
    return float(np.average(costs, weights=times))


def _evenly(importance: Floats, level: float) -> NDArray[np.int32]:
    """Returns a number for all images, or two that differ by one, so that any mean cost can be met."""
    images, patches = importance.shape
    shares = (np.random.default_rng(images).permutation(images) + 0.5) / images
    return np.maximum(1, np.floor(level * patches + shares)).astype(np.int32)


EVEN: Final = CountRule("density", _evenly)
