"""What a sparse training step costs beside a dense one.

    python -m benchmarks.training_step

DeiT-S, 224 px, pruned inside block 3, float32, on the processors that torch takes by itself. A step is a forward and a
backward pass through the student and the optimiser's update; with a teacher, its forward pass too. Dense and sparse
steps take turns, and the ratio is that of each pair. "packed" is half of the tokens, as many of every image, by the
pass that steps by mass take. The last figure is of the demonstration model in bfloat16: forward and backward pass with
torch's fused attention over those with two matrix products in its place.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import click
import numpy as np
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from benchmarks.common import THREADS, environment, write
from sait_deploy import demo
from sait_deploy.bench.stats import paired_ratio
from sait_deploy.manifest import WeightsSource
from sait_deploy.schedule import OperatingPoint, Score
from sait_deploy.training.losses import losses_of
from sait_deploy.training.options import Distillation, Recipe
from sait_deploy.training.recipe import make_optimizer
from sait_deploy.training.student import Student, unfuse_on_cpu
from sait_deploy.training.teacher import Teacher
from sait_deploy.zoo import WeightsRequest, load_model

NAME: Final = "deit_small_patch16_224"
PRUNE_AT: Final = 3
DENSITIES: Final = (0.7, 0.5, 0.3)
BATCH: Final = 8
TARGET: Final = 0.75
DEMO_BATCH: Final = 64


def _steps(teacher: Teacher | None) -> dict[str, Callable[[], None]]:
    """Returns a dense step and sparse ones of one model."""
    torch.manual_seed(0)
    vit = timm.create_model(NAME)
    unfuse_on_cpu(vit)
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
    found: dict[str, Callable[[], None]] = {"dense": functools.partial(step, None)}
    for density in DENSITIES:
        kept = round(density * patches)
        found[f"density {density:g}"] = functools.partial(step, OperatingPoint(1.0, kept, kept))
    half = round(0.5 * patches)
    found["packed"] = functools.partial(step, OperatingPoint(0.0, half, half + 1))
    return found


def _attention_steps() -> dict[str, Callable[[], None]]:
    """Returns forward and backward passes of the demonstration model in bfloat16, its attention fused or not."""

    def step(vit: VisionTransformer, images: torch.Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = vit(images)
        logits.float().square().sum().backward()  # type: ignore[no-untyped-call]

    found: dict[str, Callable[[], None]] = {}
    for name in ("dense", "fused"):
        vit = load_model(demo.NAME, WeightsRequest(WeightsSource.RANDOM)).vit.train().requires_grad_(True)
        if name == "dense":
            unfuse_on_cpu(vit)
        found[name] = functools.partial(step, vit, torch.randn(DEMO_BATCH, 3, *vit.patch_embed.img_size))
    return found


def _measured(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, Any]:
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
    unfuse_on_cpu(teacher_vit)
    found = {
        "model": NAME,
        "batch": BATCH,
        "rounds": rounds,
        "target_at_half_density": TARGET,
        "labels alone": _measured(_steps(None), rounds),
        "with a teacher": _measured(_steps(Teacher(teacher_vit, 2, Score.CLS)), rounds),
        "demonstration, bfloat16": _measured(_attention_steps(), rounds),
    }
    machine = environment("torch", "timm")
    click.echo(write("training_step", "python -m benchmarks.training_step", found, machine))


if __name__ == "__main__":
    main()
