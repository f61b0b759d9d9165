"""Which steps are dense, and at which density the others are: a function of the seed alone, so that it resumes."""

from __future__ import annotations

import math

import numpy as np

from sait_deploy.training.options import Alternation, DensityRange

_STREAM = 0x5A17
"""Keeps these draws apart from others of the same seed."""


def kept_in_step(
    epoch: int, step: int, patch_tokens: int, alternation: Alternation, densities: DensityRange, seed: int
) -> int | None:
    """Returns the patch tokens that every image of a step keeps; None in a dense step.

    Steps, or epochs, alternate, the first dense. All processes of a training draw the same.

    Args:
        epoch: from 0.
        step: of this epoch, from 0.
        patch_tokens: N.
        alternation: of steps or of epochs.
        densities: drawn from, uniformly.
        seed: of the draws.
    """
    if alternation is Alternation.NEVER:
        return None
    turn = epoch if alternation is Alternation.EPOCH else step
    if turn % 2 == 0:
        return None
    draw = np.random.default_rng((_STREAM, seed, epoch, 0 if alternation is Alternation.EPOCH else step))
    return max(1, math.ceil(draw.uniform(densities.low, densities.high) * patch_tokens))
