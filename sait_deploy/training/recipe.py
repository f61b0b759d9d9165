"""From a recipe's names and numbers to timm's optimiser, schedule, Mixup and stochastic depth."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn

from sait_deploy.errors import InvalidArgument
from sait_deploy.models.families import transformer_of
from sait_deploy.training.options import Recipe

SCHEDULES: Final = ("cosine", "tanh")
"""timm's schedules that need nothing but a number of epochs: the others need milestones or powers."""

_SECOND_ORDER: Final = ("adahessian",)
"""timm's optimisers that need gradients of gradients, which a step does not compute."""

_ELSEWHERE: Final = ("bnb*", "fused*")
"""Names of timm's optimisers that other packages implement, for GPUs."""


def make_optimizer(vit: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Makes timm's optimiser over a model's parameters; biases, norms and what timm excepts do not decay.

    Raises:
        InvalidArgument: timm has no optimiser of that name, or a package or a GPU that it needs is missing.
    """
    if recipe.optimizer in _SECOND_ORDER or recipe.optimizer not in list_optimizers():
        usual = list_optimizers(exclude_filters=[*_ELSEWHERE, *_SECOND_ORDER])
        raise InvalidArgument(f"there is no optimizer {recipe.optimizer!r}", f"timm has {', '.join(usual)}")
    layer_decay = None if recipe.layer_decay == 1 else recipe.layer_decay
    try:
        made: torch.optim.Optimizer = create_optimizer_v2(
            vit, recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, layer_decay=layer_decay
        )
    except (AssertionError, ImportError) as error:  # timm's way to say that a package or a GPU is missing
        raise InvalidArgument(f"optimizer {recipe.optimizer!r} cannot be had here: {error}", "choose another") from None
    return made


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    """Makes timm's schedule, to be updated before every step; ``steps`` are those of an epoch.

    Raises:
        InvalidArgument: there is no schedule of that name.
    """
    if recipe.schedule not in SCHEDULES:
        raise InvalidArgument(f"there is no schedule {recipe.schedule!r}", f"choose from {', '.join(SCHEDULES)}")
    span = recipe.epochs if recipe.schedule_epochs is None else recipe.schedule_epochs
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=recipe.schedule,
        num_epochs=max(span - recipe.warmup_epochs, 1 / steps),  # timm counts the warm-up on top
        warmup_epochs=recipe.warmup_epochs,
        warmup_prefix=True,
        warmup_lr=recipe.least_learning_rate,
        min_lr=recipe.least_learning_rate,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return schedule


def make_mixup(recipe: Recipe, classes: int, images: int) -> Any:
    """Makes timm's Mixup, or None where the recipe has neither Mixup nor CutMix.

    Args:
        recipe: how much is mixed, and how large a batch is.
        classes: number of classes.
        images: number of training images; fewer than a batch make one batch.

    Raises:
        InvalidArgument: the batch is odd.
    """
    if recipe.mixup == 0 and recipe.cutmix == 0:
        return None
    batch = min(recipe.batch, images)
    if batch % 2:
        raise InvalidArgument(f"Mixup pairs images, and a batch has {batch}", "give an even --batch no larger")
    return Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=classes)


def set_drop_path(vit: nn.Module, rate: float) -> None:
    """Sets stochastic depth, rising linearly from 0 in the first block.

    Raises:
        InvalidArgument: the model has none, and the rate is not 0.
    """
    transformer = transformer_of(vit)
    transformer.set_drop_path(np.linspace(0.0, rate, transformer.depth).tolist())
