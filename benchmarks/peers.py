"""Other methods of saving tokens, on the same weights: as torch modules that export as the toolkit's own forms do.

Written from the papers' descriptions, in the layout that is fastest here: one flat matrix of tokens, heads laid out by
gathers, attention as the toolkit's operator wherever a method leaves it as it is.

- Merging: bipartite soft matching of Token Merging (Bolya et al., arXiv 2210.09461), with proportional attention. In
  every block some tokens are merged into the most similar of the others. The sums of merged tokens are a matrix
  product, as adding scatters are slow on CPUs.
- Fused: EViT (Liang et al., arXiv 2202.07800). After the attention of three blocks the patch tokens that the class
  token attends to most are kept, and the others become one token, their sum weighted by that attention.
- Padded: the toolkit's own selection by mass without packing. All images are padded to the longest, in all layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from sait_deploy.models.families import transformer_of
from sait_deploy.models.layers import token_importance
from sait_deploy.models.layouts import Packed, Uniform
from sait_deploy.models.transformer import Heads, Tokens
from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select
from sait_deploy.plugins.pack_plan.torch_op import pack_plan
from sait_deploy.plugins.pack_rows.torch_op import pack_rows
from sait_deploy.plugins.read_extents.torch_op import read_extents
from sait_deploy.tokens import Geometry, Score

STAGES: Final = (1 / 4, 1 / 2, 3 / 4)
"""Depths of the blocks in which EViT drops tokens, as shares: the fourth, seventh and tenth of twelve."""


def chain_macs(geometry: Geometry, attended: Sequence[int], fed: Sequence[int]) -> int:
    """Returns the multiply-accumulates of an image whose number of tokens changes from block to block.

    Args:
        geometry: the model's sizes.
        attended: tokens of each block's attention, prefix included.
        fed: tokens of each block's MLP, likewise.
    """
    blocks = sum(
        a * geometry.attention_macs_per_token + 2 * a * a * geometry.attention_width + f * geometry.mlp_macs_per_token
        for a, f in zip(attended, fed, strict=True)
    )
    return geometry.embed_macs + blocks + geometry.readout_macs + fed[-1] * geometry.readout_macs_per_token


@dataclass(frozen=True, slots=True)
class Merges:
    """How many tokens are merged in each block."""

    merged: tuple[int, ...]

    def macs(self, geometry: Geometry) -> int:
        """Returns the multiply-accumulates of one image; those of finding and summing pairs are left out."""
        attended, fed = [geometry.tokens], []
        for merged in self.merged:
            fed.append(attended[-1] - merged)
            attended.append(fed[-1])
        return chain_macs(geometry, attended[:-1], fed)

    @classmethod
    def of_macs(cls, geometry: Geometry, macs: float) -> Merges | None:
        """Returns the fewest merges, as even over the blocks as can be, that cost at most so much; None where none do.

        A block merges every second patch token at most.
        """
        for total in range(geometry.depth * geometry.patch_tokens):
            found = cls._of_total(geometry, total)
            if found.macs(geometry) <= macs:
                return found
        return None

    @classmethod
    def _of_total(cls, geometry: Geometry, total: int) -> Merges:
        each, more = divmod(total, geometry.depth)
        merged, patches = [], geometry.patch_tokens
        for block in range(geometry.depth):
            merged.append(min(each + (block < more), patches // 2))
            patches -= merged[-1]
        return cls(tuple(merged))


@dataclass(frozen=True, slots=True)
class Keeps:
    """How many patch tokens are kept where, by block; the others become one more patch token."""

    kept: tuple[tuple[int, int], ...]

    def macs(self, geometry: Geometry) -> int:
        """Returns the multiply-accumulates of one image."""
        kept, tokens = dict(self.kept), geometry.tokens
        attended, fed = [], []
        for block in range(geometry.depth):
            attended.append(tokens)
            if block in kept:
                tokens = geometry.prefix_tokens + kept[block] + 1
            fed.append(tokens)
        return chain_macs(geometry, attended, fed)

    @classmethod
    def of_macs(cls, geometry: Geometry, macs: float) -> Keeps | None:
        """Returns the largest share kept at each stage that costs at most so much; None where none does."""
        shares = (cls.of_share(geometry, thousandths / 1000) for thousandths in range(999, 0, -1))
        return next((found for found in shares if found.macs(geometry) <= macs), None)

    @classmethod
    def of_share(cls, geometry: Geometry, share: float) -> Keeps:
        """Returns what is kept where each stage keeps this share of its patch tokens, a fused one among them."""
        patches, kept = geometry.patch_tokens, []
        for stage in STAGES:
            number = max(1, min(math.ceil(share * patches), patches - 1))
            kept.append((int(stage * geometry.depth), number))
            patches = number + 1
        return cls(tuple(kept))


class Merging(nn.Module):
    """Dense attention and MLPs on ever fewer tokens: some are merged in every block.

    Args:
        vit: a model with a class token and no other prefix token.
        merges: how many.
    """

    def __init__(self, vit: nn.Module, merges: Merges) -> None:
        super().__init__()
        self.vit, self.merges = vit.eval(), merges
        self.model = transformer_of(vit)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Returns the logits, float32 [B, classes], of images float32 [B, 3, H, W]."""
        model, batch = self.model, images.shape[0]
        tokens = model.shape().geometry.tokens
        x, size = model.embed(images).x, torch.ones(batch * tokens, 1, device=images.device, dtype=images.dtype)
        for block, merged in enumerate(self.merges.merged):
            layout = Uniform.of(batch, tokens, images.device)
            attended, keys = _attended_in_proportion(model.heads(block, Tokens(x)), batch, tokens, size)
            x = model.attended(block, Tokens(x), attended, layout).x
            if merged:
                x, size = _merged(x, size, keys, batch, merged)
                tokens -= merged
                layout = Uniform.of(batch, tokens, images.device)
            x = model.fed_forward(block, Tokens(x), layout).x
        return (model.readout(model.normed(x), Uniform.of(batch, tokens, images.device)).float(),)


def _attended_in_proportion(heads: Heads, batch: int, tokens: int, size: Tensor) -> tuple[Tensor, Tensor]:
    """Attends to tokens in proportion to how many each stands for.

    Args:
        heads: of flat tokens.
        batch: B.
        tokens: S, of each image.
        size: float32 [B*S, 1], how many tokens each stands for.

    Returns:
        [B*S, H*Dh], and the mean of the keys over heads, [B, S, Dh].
    """
    query, key, value = _gathered(heads, batch, tokens)
    scores = (query * heads.scale) @ key.transpose(-1, -2) + size.log().reshape(batch, 1, 1, tokens)
    attended = torch.softmax(scores, dim=-1) @ value
    return attended.transpose(1, 2).reshape(batch * tokens, -1), key.mean(1)


def _gathered(heads: Heads, batch: int, tokens: int) -> list[Tensor]:
    """Returns queries, keys and values, [B, H, S, Dh] each, gathered as the toolkit's own attention does."""
    number = heads.num_heads
    rows = heads.qkv.reshape(batch * tokens * 3 * number, -1)
    device = heads.qkv.device
    token = torch.arange(batch * tokens, device=device).reshape(batch, 1, tokens) * (3 * number)
    head = torch.arange(number, device=device).reshape(1, number, 1)
    places = (token + head).reshape(-1)
    parts = [rows.index_select(0, places + part * number) for part in range(3)]
    return [part.reshape(batch, number, tokens, -1) for part in parts]


def _merged(x: Tensor, size: Tensor, keys: Tensor, batch: int, merged: int) -> tuple[Tensor, Tensor]:
    """Merges tokens into others by bipartite soft matching.

    Of the patch tokens, every second one may merge into the most similar of the rest, by the cosine of their keys; so
    many of the most similar pairs do. The class token never merges.

    Args:
        x: [B*S, D].
        size: [B*S, 1].
        keys: [B, S, Dh].
        batch: B.
        merged: how many of each image.

    Returns:
        The means of merged tokens by size, and their sizes: class token, unmerged, targets.
    """
    tokens = keys.shape[1]
    device = x.device
    metric = keys / keys.norm(dim=-1, keepdim=True)
    best, target = (metric[:, 2::2] @ metric[:, 1::2].transpose(-1, -2)).max(-1)
    sources, targets = best.shape[1], tokens - 1 - best.shape[1]
    order = best.topk(sources).indices
    first = torch.arange(batch, device=device).reshape(batch, 1) * tokens
    leaving, staying = order[:, :merged], order[:, merged:]
    into = target.reshape(-1).index_select(0, (first // tokens * sources + leaving).reshape(-1)).reshape(batch, merged)
    one_hot = (into[:, None, :] == torch.arange(targets, device=device)[None, :, None]).to(x.dtype)
    kept = torch.cat([first, first + 2 + 2 * staying], dim=1).reshape(-1)
    odd = (first + 1 + 2 * torch.arange(targets, device=device)).reshape(-1)
    gone = (first + 2 + 2 * leaving).reshape(-1)
    weighted = x * size
    moved, grown = (one.index_select(0, gone).reshape(batch, merged, -1) for one in (weighted, size))
    received = weighted.index_select(0, odd).reshape(batch, targets, -1) + one_hot @ moved
    # A product with one column would run in another precision than the others on some runtimes.
    sizes = size.index_select(0, odd).reshape(batch, targets, 1) + (one_hot * grown.transpose(1, 2)).sum(
        -1, keepdim=True
    )

    def joined(stayed: Tensor, merged_into: Tensor) -> Tensor:
        stayed = stayed.index_select(0, kept).reshape(batch, 1 + sources - merged, -1)
        return torch.cat([stayed, merged_into], dim=1).reshape(batch * (tokens - merged), -1)

    new_size = joined(size, sizes)
    return joined(weighted, received) / new_size, new_size


class Fused(nn.Module):
    """The patch tokens of the highest class attention are kept in three blocks; the others become one token.

    Args:
        vit: a model with a class token and no other prefix token.
        keeps: how many, where.
    """

    def __init__(self, vit: nn.Module, keeps: Keeps) -> None:
        super().__init__()
        self.vit, self.keeps = vit.eval(), keeps
        self.model = transformer_of(vit)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Returns the logits, float32 [B, classes], of images float32 [B, 3, H, W]."""
        model, batch, kept = self.model, images.shape[0], dict(self.keeps.kept)
        tokens = model.shape().geometry.tokens
        x = model.embed(images)
        for block in range(model.depth):
            layout = Uniform.of(batch, tokens, images.device)
            x, weights = model.scored(block, x, layout)
            if block in kept:
                x = Tokens(_fused(x.x, weights[:, :, 0, 1:].mean(1), kept[block]))
                tokens = kept[block] + 2
                layout = Uniform.of(batch, tokens, images.device)
            x = model.fed_forward(block, x, layout)
        return (model.readout(model.normed(x.x), Uniform.of(batch, tokens, images.device)).float(),)


def _fused(x: Tensor, attention: Tensor, kept: int) -> Tensor:
    """Keeps the class token and the patch tokens of most attention, and adds one that the others are summed to.

    Args:
        x: [B*(1+N), D].
        attention: of the class token to the patch tokens, [B, N].
        kept: patch tokens that stay.

    Returns:
        [B*(1+kept+1), D].
    """
    batch, patches = attention.shape
    share, order = attention.topk(patches)
    first = torch.arange(batch, device=x.device).reshape(batch, 1) * (patches + 1)
    stay = torch.cat([first, first + 1 + order[:, :kept]], dim=1)
    leave = first + 1 + order[:, kept:]
    dropped = x.index_select(0, leave.reshape(-1)).reshape(batch, patches - kept, -1)
    fused = share[:, None, kept:].to(dropped.dtype) @ dropped
    whole = torch.cat([x.index_select(0, stay.reshape(-1)).reshape(batch, kept + 1, -1), fused], dim=1)
    return whole.reshape(batch * (kept + 2), -1)


class Padded(nn.Module):
    """The adaptive form without packing: from the block pruned in, all layers run on images padded to the longest.

    Args:
        vit: the model.
        score: how importance is read off the attention.
        prune_at: the block.
    """

    def __init__(self, vit: nn.Module, score: Score, prune_at: int) -> None:
        super().__init__()
        self.vit, self.score, self.prune_at = vit.eval(), score, prune_at
        self.model = transformer_of(vit)

    def forward(self, images: Tensor, mass: Tensor, keep_limits: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the adaptive form does, of the same inputs."""
        model, geometry, batch = self.model, self.model.shape().geometry, images.shape[0]
        whole = Uniform.of(batch, geometry.tokens, images.device)
        tokens = model.run(model.embed(images), whole, 0, self.prune_at)
        tokens, weights = model.scored(self.prune_at, tokens, whole)
        importance = token_importance(weights, geometry.prefix_tokens, self.score)
        keep, counts = mass_token_select(importance, mass, keep_limits, geometry.prefix_tokens)
        rows, cu_seqlens = pack_rows(keep, counts)
        kept, lanes = read_extents(rows, cu_seqlens)
        slots, _, mask = pack_plan(kept, cu_seqlens, lanes)
        padded = kept.index_select(0, slots.reshape(-1))
        numbers = torch.arange(padded.shape[0], dtype=torch.int32, device=images.device)
        layout = Packed(numbers.reshape(slots.shape), numbers, mask)
        x = model.run_rest(self.prune_at, tokens.rows(padded), layout).x
        return model.readout(model.normed(x), layout).float() + importance[:, :1] * 0, counts
