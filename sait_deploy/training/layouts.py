"""The layouts of ``models.layouts`` with gradients, dropout and stochastic depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sait_deploy.models.layouts import Layouts, Packed, Uniform
from sait_deploy.models.transformer import Heads
from sait_deploy.plugins.lanes import attend_lanes, lanes_of


@dataclass(frozen=True, slots=True)
class DifferentiableUniform(Uniform):
    """Every image has as many tokens."""

    def scored(self, heads: Heads) -> tuple[Tensor, Tensor]:
        """Runs attention and returns its weights before dropout, in at least float32, too."""
        lanes = lanes_of(heads.qkv, self.slots, heads.num_heads)
        y, weights = attend_lanes(*lanes, heads.scale, dropout=heads.dropout)
        return y.flatten(0, 1), weights

    def attend(self, heads: Heads) -> Tensor:
        """Runs attention as two matrix products, its softmax in the precision of the scores."""
        lanes = lanes_of(heads.qkv, self.slots, heads.num_heads)
        y, _ = attend_lanes(*lanes, heads.scale, dropout=heads.dropout, in_float32=False)
        return y.flatten(0, 1)

    def drop_path(self, path: nn.Module, update: Tensor) -> Tensor:
        """Lets stochastic depth drop the updates of whole images."""
        if isinstance(path, nn.Identity):
            return update
        batch, tokens = self.slots.shape
        scale: Tensor = path(update.new_ones(batch, 1, 1))
        return (update.reshape(batch, tokens, -1) * scale).reshape(update.shape)


@dataclass(frozen=True, slots=True)
class FusedUniform(DifferentiableUniform):
    """Every image has as many tokens, and attention is torch's fused one."""

    def attend(self, heads: Heads) -> Tensor:
        """Runs fused attention."""
        q, k, v = lanes_of(heads.qkv, self.slots, heads.num_heads)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=heads.dropout, scale=heads.scale)
        return y.transpose(1, 2).flatten(2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class DifferentiablePacked(Packed):
    """Every image has its own number of tokens, so that images of few tokens cost as little."""

    def attend(self, heads: Heads) -> Tensor:
        """Runs attention as two matrix products over the padded lanes of each image."""
        rows = heads.qkv.index_select(0, self.slots.flatten())
        lanes = lanes_of(rows, self.slots, heads.num_heads)
        y, _ = attend_lanes(*lanes, heads.scale, self.mask, dropout=heads.dropout)
        return y.flatten(0, 1).index_select(0, self.unslots)

    def drop_path(self, path: nn.Module, update: Tensor) -> Tensor:
        """Lets stochastic depth drop the updates of whole images."""
        if isinstance(path, nn.Identity):
            return update
        scale: Tensor = path(update.new_ones(len(self.slots), 1))
        return update * scale.index_select(0, self.unslots // self.slots.shape[1])


def differentiable(device: torch.device) -> Layouts:
    """Returns the layouts that train fastest on a device.

    On a CPU the backward pass of torch's fused attention takes several times as long as that of two matrix products.
    """
    return Layouts(DifferentiableUniform if device.type == "cpu" else FusedUniform, DifferentiablePacked)
