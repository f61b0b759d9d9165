"""Operating points, token counts and multiply-accumulates: plain integers, no torch.

Multiply-accumulates (MACs) count the linear layers and the two matrix products of attention, as the field does; norms,
softmax, activations and gathers count nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Final

from sait_deploy.errors import InvalidArgument

_MOST_DECIMALS: Final = 15
"""Decimals a density may have: with them, its product with any number of tokens is exact."""


_MOST_ROWS: Final = 2**31 - 1
_SMALLEST_HEAD: Final = 8
"""Heads are this wide or wider."""


class Score(StrEnum):
    """How importance is read off the attention of the block pruned in."""

    MEAN = "mean"
    """Mean over heads and all query rows: how much every token attends to this one."""

    CLS = "cls"
    """Mean over heads of the class token's row."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Keep the fewest top tokens whose importance reaches ``mass``, within the two limits (patch tokens)."""

    mass: float
    min_keep: int
    max_keep: int


def parse_density(text: str) -> Decimal:
    """Reads a token density, the kept share of the patch tokens, as an exact decimal.

    Raises:
        InvalidArgument: it is no number in (0, 1], or has more decimals than can be exact.
    """
    try:
        density = Decimal(text)
    except InvalidOperation:
        raise InvalidArgument(
            f"density {text!r} is not a number", "give the share of tokens to keep, such as 0.6"
        ) from None
    if not (density.is_finite() and 0 < density <= 1):
        raise InvalidArgument(f"density {text} is outside (0, 1]", "give the share of tokens to keep, such as 0.6")
    exact = round(density, _MOST_DECIMALS)
    if exact != density:
        raise InvalidArgument(f"density {text} has more than {_MOST_DECIMALS} decimals", "give fewer, such as 0.6")
    return exact.normalize()


def kept_at_density(density: Decimal, patch_tokens: int) -> int:
    """Returns ceil(density * N) in exact arithmetic: 0.07 of 100 is 7."""
    return math.ceil(density * patch_tokens)


def density_point(density: Decimal, patch_tokens: int) -> OperatingPoint:
    """Returns the operating point at which every image keeps the same number of tokens."""
    kept = kept_at_density(density, patch_tokens)
    return OperatingPoint(mass=1.0, min_keep=kept, max_keep=kept)


def default_prune_at(depth: int) -> int:
    """Returns the block that is pruned in where none is named: the first quarter ends there."""
    return depth // 4


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a vision transformer that MACs follow from.

    Attributes:
        depth: number of blocks.
        width: embedding dimension D.
        attention_width: heads times head size, summed over heads.
        patch_tokens: N.
        prefix_tokens: P.
        embed_macs: patch embedding, per image.
        attention_macs_per_token: the projections of one block's attention.
        mlp_macs_per_token: one block's MLP.
        readout_macs: pooling and head, per image, whatever the number of tokens.
        readout_macs_per_token: what the pooling adds for each token it reads.
    """

    depth: int
    width: int
    attention_width: int
    patch_tokens: int
    prefix_tokens: int
    embed_macs: int
    attention_macs_per_token: int
    mlp_macs_per_token: int
    readout_macs: int
    readout_macs_per_token: int

    @property
    def tokens(self) -> int:
        """All tokens of one image, P + N."""
        return self.prefix_tokens + self.patch_tokens


def most_images(geometry: Geometry) -> int:
    """Returns the most images of one batch: attention counts heads' queries, keys and values of all tokens in int32."""
    return _MOST_ROWS // (geometry.tokens * 3 * max(1, geometry.attention_width // _SMALLEST_HEAD))


def _attention_macs(geometry: Geometry, tokens: int) -> int:
    return tokens * geometry.attention_macs_per_token + 2 * tokens * tokens * geometry.attention_width


def dense_macs(geometry: Geometry) -> int:
    """Returns the MACs of one image with no token pruned."""
    return pruned_macs(geometry, prune_at=0, kept=geometry.patch_tokens)


def pruned_macs(geometry: Geometry, prune_at: int, kept: int) -> int:
    """Returns the MACs of one image that keeps ``kept`` patch tokens from block ``prune_at``'s MLP on.

    The block pruned in computes its attention over all tokens and its MLP over the kept ones.
    """
    full, rest = geometry.tokens, geometry.prefix_tokens + kept
    before = prune_at * (_attention_macs(geometry, full) + full * geometry.mlp_macs_per_token)
    at = _attention_macs(geometry, full) + rest * geometry.mlp_macs_per_token
    after = (geometry.depth - prune_at - 1) * (_attention_macs(geometry, rest) + rest * geometry.mlp_macs_per_token)
    readout = geometry.readout_macs + rest * geometry.readout_macs_per_token
    return geometry.embed_macs + before + at + after + readout
