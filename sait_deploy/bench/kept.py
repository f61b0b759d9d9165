"""How many tokens images keep where a benchmark forces it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.errors import InvalidArgument

_ORDER_SEED: Final = 0
_SMALLEST: Final = 1e-9


@dataclass(frozen=True, slots=True)
class KeptDistribution:
    """Numbers of kept patch tokens to force: a normal distribution.

    Raises:
        InvalidArgument: a mean or spread that no images have.
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.sd) and self.mean >= 1 and self.sd >= 0):
            raise InvalidArgument(
                f"kept tokens {self.mean:g}:{self.sd:g} cannot be", "give MEAN:SD, such as 105:25, with MEAN from 1"
            )

    @classmethod
    def parse(cls, text: str) -> KeptDistribution:
        """Reads ``MEAN:SD``.

        Raises:
            InvalidArgument: it is not of that form.
        """
        mean, _, sd = text.partition(":")
        try:
            numbers = float(mean), float(sd)
        except ValueError:
            raise InvalidArgument(f"kept tokens {text!r} are not MEAN:SD", "such as 105:25") from None
        return cls(*numbers)

    def counts(self, images: int, patch_tokens: int) -> NDArray[np.int64]:
        """Returns kept tokens for that many images, int64 [n], the distribution's quantiles in shuffled order.

        Quantiles, and not draws, so that few images have the distribution's mean and spread too.
        """
        quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / images) for i in range(images)])
        spread = quantiles / max(float(quantiles.std()), _SMALLEST)  # few quantiles spread less than the distribution
        counts = np.rint(self.mean + self.sd * spread).clip(1, patch_tokens).astype(np.int64)
        shuffled: NDArray[np.int64] = np.random.default_rng(_ORDER_SEED).permutation(counts)
        return shuffled
