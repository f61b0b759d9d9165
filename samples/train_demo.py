"""Trains the demonstration model: a plain, dense vision transformer on cluttered digits.

    python samples/train_demo.py --output build/first
    python samples/train_demo.py --start-from build/first --steps 1600 --seed 2 --output build/demo

writes ``model.safetensors`` and ``report.json``. The committed ones in ``sait_deploy/demo/`` come from these: a
cycle of learning rates from scratch and a shorter one on top, about an hour on two idle cores. Every image is composed
on the fly, so no image is seen twice.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sait_deploy import demo
from sait_deploy.demo.data import CanvasOptions, Split, compose, compose_many, load_digits


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The recipe; the learning rate follows one cycle."""

    steps: int = 3600
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    label_smoothing: float = 0.05
    seed: int = 0
    evaluation_images: int = 2000
    evaluation_seed: int = 1
    log_every: int = 200
    log_images: int = 500


def to_input(images: NDArray[np.uint8]) -> torch.Tensor:
    """Turns uint8 [B, H, W, 3] into the model's normalised float32 [B, 3, H, W]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255.0)
    mean, std = torch.tensor(demo.MEAN).view(3, 1, 1), torch.tensor(demo.STD).view(3, 1, 1)
    return pixels.sub_(mean).div_(std)


@torch.inference_mode()
def accuracy(model: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Top-1 accuracy in percent."""
    model.eval()
    right = 0
    for start in range(0, len(images), 100):
        predicted = model(to_input(images[start : start + 100])).argmax(dim=1).numpy()
        right += int((predicted == labels[start : start + 100]).sum())
    model.train()
    return 100.0 * right / len(images)


def new_model(options: TrainOptions, start_from: Path | None) -> VisionTransformer:
    """Makes the model, with the weights of an earlier cycle where one is named."""
    torch.manual_seed(options.seed)
    model = VisionTransformer(**demo.ARCHITECTURE)
    if start_from is not None:
        model.load_state_dict(load_file(start_from / "model.safetensors"))
    return model


def train(model: VisionTransformer, options: TrainOptions) -> list[dict[str, float]]:
    """Trains a model for one cycle and returns its log."""
    rng = np.random.default_rng(options.seed)
    digits = load_digits(Split.TRAIN)
    watch_images, watch_labels = compose_many(Split.HELD_OUT, options.log_images, options.evaluation_seed + 1)
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.steps, pct_start=0.1
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
    log: list[dict[str, float]] = []
    running, since = 0.0, time.perf_counter()
    for step in range(1, options.steps + 1):
        composed = [compose(digits, rng) for _ in range(options.batch)]
        images = np.repeat(np.stack([image for image, _ in composed])[..., None], 3, axis=-1)
        labels = torch.tensor([label for _, label in composed])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = criterion(model(to_input(images)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.gradient_clip)
        optimizer.step()
        schedule.step()
        running += loss.item()
        if step % options.log_every == 0 or step == options.steps:
            entry = {
                "step": step,
                "loss": round(running / options.log_every, 4),
                "held_out_top1": accuracy(model, watch_images, watch_labels),
                "seconds": round(time.perf_counter() - since, 1),
            }
            running = 0.0
            log.append(entry)
            click.echo(json.dumps(entry), err=True)
    return log


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/demo"), show_default=True)
@click.option("--start-from", type=click.Path(path_type=Path), help="Output folder of an earlier cycle.")
@click.option("--steps", type=click.IntRange(min=1), default=TrainOptions().steps, show_default=True)
@click.option("--seed", type=int, default=TrainOptions().seed, show_default=True)
def main(output: Path, start_from: Path | None, steps: int, seed: int) -> None:
    """Train the demonstration model for a cycle and write its checkpoint and report."""
    options = TrainOptions(steps=steps, seed=seed)
    model = new_model(options, start_from)
    log = train(model, options)
    images, labels = compose_many(Split.HELD_OUT, options.evaluation_images, options.evaluation_seed)
    earlier = [] if start_from is None else json.loads((start_from / "report.json").read_text())["cycles"]
    report: dict[str, Any] = {
        "architecture": demo.ARCHITECTURE,
        "canvas": asdict(CanvasOptions()),
        "training": "dense",
        "held_out": {"images": len(images), "top1_percent": round(accuracy(model, images, labels), 2)},
        "cycles": [*earlier, {"options": asdict(options), "log": log}],
        "environment": {
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, output / "model.safetensors")
    (output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    click.echo(json.dumps(report["held_out"]))


if __name__ == "__main__":
    main()
