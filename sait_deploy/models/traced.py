"""What a forward pass of a prunable model computes, and where it can be divided: before a block, behind its scores."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sait_deploy.models.layouts import Uniform
from sait_deploy.models.transformer import Tokens


class Traced(NamedTuple):
    """What one forward pass computed; the selection's fields are None in a dense pass.

    Attributes:
        logits: float32 [B, classes]; embeddings [B, D] of unit length, or features [B, D] as they are, of others;
            tokens [T, D] of an image tower.
        features: float32 [B, P+N, D], normalised tokens of the last block; dropped ones as they were when dropped.
        counts: int32 [B], tokens kept per image, prefix included.
        keep: int32 [B, P+N], 1 where a token was kept.
        importance: float32 [B, N].
        blocks: as ``features``, of each block asked for.
        cu_seqlens: int32 [B+1], where each image's tokens begin, of an image tower alone.
        positions: int32 [T], which patch each of them is of; likewise.
    """

    logits: Tensor
    features: Tensor | None
    counts: Tensor | None
    keep: Tensor | None
    importance: Tensor | None
    blocks: tuple[Tensor, ...] = ()
    cu_seqlens: Tensor | None = None
    positions: Tensor | None = None


class Begun(NamedTuple):
    """All tokens before a block.

    Attributes:
        tokens: they.
        whole: how they divide into images.
        taken: what earlier blocks that are asked for left, [T, D] each.
    """

    tokens: Tokens
    whole: Uniform
    taken: tuple[Tensor, ...] = ()


class Scored(NamedTuple):
    """All tokens behind the attention of the block pruned in.

    Attributes:
        tokens: they.
        importance: read off that attention, float32 [B, N].
        taken: as :class:`Begun` has it.
    """

    tokens: Tokens
    importance: Tensor
    taken: tuple[Tensor, ...] = ()
