"""Which steps are dense, and what sparse ones keep: a function of the seed, which a resumed training repeats."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from sait_deploy.errors import InvalidArgument
from sait_deploy.tokens import OperatingPoint
from sait_deploy.training.options import Alternation, MassRange, TrainOptions

_STREAM: Final = 0x5A17
"""Keeps these draws apart from others of the same seed."""


def check_batches(images: int, batch: int, processes: int) -> None:
    """Checks that every process has a batch in an epoch; a single process takes fewer images than a batch as one batch.

    Args:
        images: to train on.
        batch: images per step and process.
        processes: that train together.

    Raises:
        InvalidArgument: there are fewer images than one batch for each of several processes.
    """
    if processes > 1 and images < batch * processes:
        raise InvalidArgument(
            f"{images} images make no batch of {batch} on {processes} processes",
            "give a smaller --batch, or fewer processes",
        )


def check_alternates(epochs: int, steps: int, alternation: Alternation, masses: MassRange | None = None) -> None:
    """Checks that a training has a sparse step, unless all are to be dense, and a step by mass where masses are given.

    Args:
        epochs: of the training.
        steps: of an epoch.
        alternation: of steps or of epochs.
        masses: range to draw from; None for none.

    Raises:
        InvalidArgument: the training has one step, or one epoch where epochs alternate, which is dense; or it ends
            before its second sparse step, which is the first to draw a mass.
    """
    if alternation is Alternation.BATCH and epochs * steps < 2:
        raise InvalidArgument(
            "a training of one step has no sparse one",
            "give more --epochs, a smaller --batch, or --alternation never",
        )
    if alternation is Alternation.EPOCH and epochs < 2:
        raise InvalidArgument(
            "a training of one epoch has no sparse one where epochs alternate",
            "give more --epochs, or --alternation batch or never",
        )
    sparse = {Alternation.BATCH: epochs * steps // 2, Alternation.EPOCH: min(steps, 2)}.get(alternation)
    if masses is not None and sparse == 1:
        raise InvalidArgument(
            "the second sparse step is the first to draw a mass, and the training has one",
            "give more epochs, a smaller batch, or no range of masses",
        )


def point_in_step(epoch: int, step: int, steps: int, patch_tokens: int, options: TrainOptions) -> OperatingPoint | None:
    """Returns what the images of a step keep; None in a dense step.

    Steps, counted over the whole training, or epochs alternate, the first dense. Every sparse step draws anew. Where
    masses are drawn from, too, sparse steps take turns: the first keeps as many tokens of every image, the second as
    many as reach its mass. All processes of a training draw the same.

    Args:
        epoch: from 0.
        step: of this epoch, from 0.
        steps: of an epoch.
        patch_tokens: N.
        options: alternation, ranges, and the seed of the draws.
    """
    by_epoch = options.alternation is Alternation.EPOCH
    turn = epoch if by_epoch else epoch * steps + step
    if options.alternation is Alternation.NEVER or turn % 2 == 0:
        return None
    draw = np.random.default_rng((_STREAM, options.seed, epoch, step))
    if options.masses is not None and (step if by_epoch else turn // 2) % 2 == 1:
        return OperatingPoint(draw.uniform(options.masses.low, options.masses.high), 1, patch_tokens)
    kept = max(1, math.ceil(draw.uniform(options.densities.low, options.densities.high) * patch_tokens))
    return OperatingPoint(1.0, kept, kept)
