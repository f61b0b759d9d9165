"""Which steps are dense, and at which density the others are: a function of the seed alone, so that it resumes."""

from __future__ import annotations

import math

import numpy as np

from sait_deploy.errors import InvalidArgument
from sait_deploy.training.options import Alternation, DensityRange

_STREAM = 0x5A17
"""Keeps these draws apart from others of the same seed."""


def check_batches(images: int, batch: int, processes: int) -> None:
    """Checks that an epoch has a step; one process by itself takes fewer images than a batch as a batch of their own.

    Args:
        images: to train on.
        batch: images per step and process.
        processes: that train together.

    Raises:
        InvalidArgument: several processes would find no batch for each.
    """
    if processes > 1 and images < batch * processes:
        raise InvalidArgument(
            f"{images} images make no batch of {batch} on {processes} processes",
            "give a smaller --batch-size, or fewer processes",
        )


def check_alternates(epochs: int, steps: int, alternation: Alternation) -> None:
    """Checks that a training that is to be sparse has a sparse step.

    Args:
        epochs: of the training.
        steps: of an epoch.
        alternation: of steps or of epochs.

    Raises:
        InvalidArgument: its first step, or epoch, which is dense, is its only one.
    """
    if alternation is Alternation.BATCH and epochs * steps < 2:
        raise InvalidArgument(
            "a training of one step has no sparse one",
            "give more --epochs, a smaller --batch-size, or --alternation never",
        )
    if alternation is Alternation.EPOCH and epochs < 2:
        raise InvalidArgument(
            "a training of one epoch has no sparse one where epochs alternate",
            "give more --epochs, or --alternation batch or never",
        )


def kept_in_step(
    epoch: int, step: int, steps: int, patch_tokens: int, alternation: Alternation, densities: DensityRange, seed: int
) -> int | None:
    """Returns the patch tokens that every image of a step keeps; None in a dense step.

    Steps, counted over the whole training, or epochs alternate, the first dense. All processes of a training draw the
    same.

    Args:
        epoch: from 0.
        step: of this epoch, from 0.
        steps: of an epoch.
        patch_tokens: N.
        alternation: of steps or of epochs.
        densities: drawn from, uniformly.
        seed: of the draws.
    """
    if alternation is Alternation.NEVER:
        return None
    turn = epoch if alternation is Alternation.EPOCH else epoch * steps + step
    if turn % 2 == 0:
        return None
    draw = np.random.default_rng((_STREAM, seed, epoch, 0 if alternation is Alternation.EPOCH else step))
    return max(1, math.ceil(draw.uniform(densities.low, densities.high) * patch_tokens))
