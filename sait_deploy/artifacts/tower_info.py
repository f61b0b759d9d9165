"""The image tower of a vision-language model: which of its tokens an artifact returns, and by which names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sait_deploy.errors import InvalidArgument
from sait_deploy.system.option_values import check_options

TOKENS: Final = "tokens"
"""Name of the output that holds the kept tokens of a batch end to end: float32 [T, D]."""

CU_SEQLENS: Final = "cu_seqlens"
"""Name of the output that says where each image's tokens begin: int32 [B + 1], 0 first and T last."""

POSITIONS: Final = "positions"
"""Name of the output that says which patch each token is of: int32 [T], row by row; prefix tokens count up to -1."""


class SelectStrategy(StrEnum):
    """Which tokens of the layer are returned, by the values of LLaVA's ``vision_feature_select_strategy``."""

    DEFAULT = "default"
    """The patches alone."""

    FULL = "full"
    """The prefix tokens, such as the class token, before each image's patches."""


@dataclass(frozen=True, slots=True)
class TowerChoice:
    """What a vision-language model takes of its image tower.

    Attributes:
        vision_feature_layer: the block whose output is taken, from 1, or -1 for the last and -2 for the one before it;
            None for the last, after the model's last norm.
        vision_feature_select_strategy: which of its tokens.
    """

    vision_feature_layer: int | None = None
    vision_feature_select_strategy: SelectStrategy = SelectStrategy.DEFAULT

    def __post_init__(self) -> None:
        check_options(self)

    def blocks(self, depth: int) -> int:
        """Returns how many of so many blocks run.

        Raises:
            InvalidArgument: there is no such block.
        """
        layer = self.vision_feature_layer
        if layer is None:
            return depth
        if layer == 0 or abs(layer) > depth:
            raise InvalidArgument(
                f"layer {layer} is none of a tower of {depth} blocks",
                f"give 1 to {depth} for the output of a block, or -1 to {-depth} from the last",
            )
        return layer if layer > 0 else depth + 1 + layer

    def counted_from_last(self, depth: int) -> TowerChoice:
        """Returns the same choice with its layer counted from the last, so that equal choices are equal.

        Raises:
            InvalidArgument: there is no such block.
        """
        if self.vision_feature_layer is None:
            return self
        return TowerChoice(self.blocks(depth) - depth - 1, self.vision_feature_select_strategy)

    def left_out(self, prefix: int) -> int:
        """Returns how many of an image's first tokens are not returned, of so many prefix tokens."""
        return prefix if self.vision_feature_select_strategy is SelectStrategy.DEFAULT else 0


def tower_words(choice: TowerChoice, width: int, prefix: int) -> str:
    """Returns what an artifact answers, in words."""
    layer = choice.vision_feature_layer
    where = "the last block's output after the last norm" if layer is None else f"the output of layer {layer}"
    if prefix:
        which = "patches alone" if choice.left_out(prefix) else "prefix tokens too"
        where = f"{where}, {which}"
    return f"kept tokens of {width} numbers, {where}"
