"""What a sparse training step costs beside a dense one.

    python -m benchmarks.training_step

DeiT-S, 224 px, pruned inside block 3, float32, on the processors that torch takes by itself. A step is a forward and a
backward pass through the student and the optimiser's update; with a teacher, its forward pass too. Dense and sparse
steps take turns, and the ratio is that of each pair.

The demonstration model's steps are forward and backward passes in bfloat16 on its own images: by mass, where images
keep their own number of tokens, and with as many tokens of each as that keeps in the mean; and dense by
timm's own forward pass, whose attention is torch's fused one in place of two matrix products.
"""

from __future__ import annotations

import copy
import functools
import math
import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import click
import numpy as np
import timm
import torch

from benchmarks.common import THREADS, environment, write
from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.demo.data import Split, compose_many
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.tokens import OperatingPoint, Score, kept_at_density
from sait_deploy.training.losses import losses_of
from sait_deploy.training.options import Distillation, Recipe
from sait_deploy.training.recipe import make_optimizer
from sait_deploy.training.student import Student
from sait_deploy.training.teacher import Teacher

NAME: Final = "deit_small_patch16_224"
PRUNE_AT: Final = 3
DENSITIES: Final = tuple(map(Decimal, ("0.7", "0.5", "0.3")))
BATCH: Final = 8
TARGET: Final = 0.75
DEMO_BATCH: Final = 64
DEMO_PRUNE_AT: Final = 1
DEMO_MASS: Final = 0.9


def _steps(teacher: Teacher | None) -> dict[str, Callable[[], object]]:
    """Returns a dense step and sparse ones of one model."""
    torch.manual_seed(0)
    vit = timm.create_model(NAME)
    student = Student(vit, Score.MEAN, PRUNE_AT).train()
    optimizer = make_optimizer(vit, Recipe())
    images, labels = torch.randn(BATCH, 3, 224, 224), torch.randint(0, 1000, (BATCH,))

    def step(point: OperatingPoint | None) -> None:
        taught = None if teacher is None else teacher(images)
        losses = losses_of(student(images, point), labels, taught, Distillation(), 0.1)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()

    patches = vit.patch_embed.num_patches
    found: dict[str, Callable[[], object]] = {"dense": functools.partial(step, None)}
    for density in DENSITIES:
        kept = kept_at_density(density, patches)
        found[f"density {density}"] = functools.partial(step, OperatingPoint(1.0, kept, kept))
    return found


def _demo_steps() -> dict[str, Callable[[], object]]:
    """Returns forward and backward passes of the demonstration model on its own images, in bfloat16."""
    loaded = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    pixels, _ = compose_many(Split.HELD_OUT, DEMO_BATCH, seed=0)
    mean, std = (torch.tensor(values) for values in (loaded.preprocessing.mean, loaded.preprocessing.std))
    images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
    fused = copy.deepcopy(loaded.vit).train()
    student = Student(loaded.vit, Score.MEAN, DEMO_PRUNE_AT).train()
    patches = loaded.info.geometry.patch_tokens

    def step(forward: Callable[[], torch.Tensor]) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = forward()
        logits.float().square().sum().backward()  # type: ignore[no-untyped-call]

    by_mass = OperatingPoint(DEMO_MASS, 1, patches)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        density = student(images, by_mass).density
    assert density is not None
    kept = math.ceil(density * patches)
    points = {"dense": None, f"mass {DEMO_MASS:g}": by_mass, "as many of each": OperatingPoint(1.0, kept, kept)}
    steps: dict[str, Callable[[], object]] = {
        name: functools.partial(step, lambda point=point: student(images, point).logits)  # type: ignore[misc]
        for name, point in points.items()
    }
    return {**steps, "fused": functools.partial(step, lambda: fused(images))}


def _measured(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for run in steps.values():
        run()
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(steps)):
            began = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - began)
    found: dict[str, Any] = {"dense_seconds": round(statistics.median(seconds["dense"]), 4)}
    for name, samples in seconds.items():
        if name != "dense":
            ratio = paired_ratio(samples, seconds["dense"])
            low, high = (round(end, 4) for end in (ratio.low, ratio.high))
            found[name] = {"low": low, "median": round(ratio.median, 4), "high": high}
    click.echo(found, err=True)
    return found


@click.command()
@click.option("--rounds", type=click.IntRange(min=6), default=15, show_default=True)
def main(rounds: int) -> None:
    """Measure and write results/training_step.json."""
    torch.set_num_threads(THREADS)
    teacher_vit = timm.create_model(NAME)
    found = {
        "model": NAME,
        "batch": BATCH,
        "rounds": rounds,
        "target_at_half_density": TARGET,
        "labels alone": _measured(_steps(None), rounds),
        "with a teacher": _measured(_steps(Teacher(teacher_vit, 2, Score.CLS)), rounds),
        "demonstration, bfloat16": _measured(_demo_steps(), rounds),
    }
    machine = environment("torch", "timm")
    click.echo(write("training_step", "python -m benchmarks.training_step", found, machine))


if __name__ == "__main__":
    main()
