"""Accuracy of the demonstration model over densities, scores and blocks, with random and least-important controls, and
over probability masses.

    python -m benchmarks.demo_densities

The weights are plain and dense: this is what pruning costs without SaiT's training.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.common import environment, write
from sait_deploy import demo
from sait_deploy.demo.data import Split, compose_many
from sait_deploy.manifest import WeightsSource
from sait_deploy.models import AdaptivePruning, FixedPruning, PrunableViT
from sait_deploy.preprocess import normalised
from sait_deploy.schedule import Score, default_prune_at, dense_macs, kept_at_density, pruned_macs
from sait_deploy.zoo import LoadedModel, WeightsRequest, load_model

IMAGES: Final = 1000
SEED: Final = 1
BATCH: Final = 100
DENSITIES: Final = tuple(Decimal(text) for text in ("0.7", "0.6", "0.5", "0.3", "0.2"))
BLOCKS: Final = (1, 2)
MASSES: Final = (0.95, 0.9, 0.8, 0.7, 0.6)

Choice = Callable[[Tensor], Tensor]


def _control(model: PrunableViT, kept: int, score_of: Choice) -> Callable[[Tensor], Tensor]:
    """Runs the model on the tokens that ``score_of(importance)`` ranks highest in place of the important ones."""

    def run(images: Tensor) -> Tensor:
        importance = model.trace(images).importance
        assert importance is not None
        ranked = score_of(importance).argsort(dim=1, descending=True)[:, :kept]
        chosen = torch.zeros_like(importance, dtype=torch.int32).scatter_(1, ranked, 1)
        prefix = torch.ones(len(images), model.prefix, dtype=torch.int32)
        return model.trace(images, keep=torch.cat([prefix, chosen], dim=1)).logits

    return run


@torch.inference_mode()
def _right(run: Callable[[Tensor], Tensor], images: Tensor, labels: np.ndarray[Any, Any]) -> float:
    answers = [run(images[start : start + BATCH]).argmax(1).numpy() for start in range(0, len(images), BATCH)]
    return round(100.0 * float((np.concatenate(answers) == labels).mean()), 2)


def _row(
    model: LoadedModel, block: int, density: Decimal, images: Tensor, labels: np.ndarray[Any, Any]
) -> dict[str, Any]:
    geometry = model.info.geometry
    kept = kept_at_density(density, geometry.patch_tokens)
    runs: dict[str, Callable[[Tensor], Tensor]] = {}
    for score in Score:
        pruned = PrunableViT(model.vit, FixedPruning(score, block, kept))
        runs[score.value] = lambda batch, pruned=pruned: pruned(batch)[0]  # type: ignore[misc]
    pruned = PrunableViT(model.vit, FixedPruning(Score.MEAN, block, kept))
    generator = torch.Generator().manual_seed(0)
    runs["random"] = _control(pruned, kept, lambda seen: torch.rand(seen.shape, generator=generator))
    runs["least important"] = _control(pruned, kept, torch.neg)
    top1 = {name: _right(run, images, labels) for name, run in runs.items()}
    ratio = round(dense_macs(geometry) / pruned_macs(geometry, block, kept), 3)
    row = {"prune_at": block, "density": str(density), "kept": kept, "mac_ratio": ratio, "top1_percent": top1}
    click.echo(json.dumps(row), err=True)
    return row


@torch.inference_mode()
def _mass_row(model: LoadedModel, mass: float, images: Tensor, labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """What a probability mass keeps of each image, at the default block and score, and what is right of it."""
    geometry, block = model.info.geometry, default_prune_at(model.info.geometry.depth)
    adaptive = PrunableViT(model.vit, AdaptivePruning(Score.MEAN, block))
    kept, right = [], 0
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        limits = torch.tensor([[1, geometry.patch_tokens]] * len(batch), dtype=torch.int32)
        logits, counts = adaptive(batch, torch.full((len(batch),), mass), limits)
        kept.append(counts.numpy() - geometry.prefix_tokens)
        right += int((logits.argmax(1).numpy() == labels[start : start + BATCH]).sum())
    counts = np.concatenate(kept)
    macs = sum(pruned_macs(geometry, block, int(count)) for count in counts) / len(counts)
    row = {
        "mass": mass,
        "kept": {
            "mean": round(float(counts.mean()), 2),
            "sd": round(float(counts.std()), 2),
            "p5": float(np.percentile(counts, 5)),
            "p95": float(np.percentile(counts, 95)),
            "most": int(counts.max()),
        },
        "mac_ratio": round(dense_macs(geometry) / macs, 3),
        "top1_percent": round(100.0 * right / len(labels), 2),
    }
    click.echo(json.dumps(row), err=True)
    return row


@click.command()
def main() -> None:
    """Evaluate and write results/demo_densities.json."""
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    pixels, labels = compose_many(Split.HELD_OUT, IMAGES, SEED)
    images = torch.from_numpy(normalised(pixels, model.preprocessing))
    dense = PrunableViT(model.vit, None)
    found = {
        "images": IMAGES,
        "weights_sha256": model.weights.sha256,
        "dense_top1_percent": _right(lambda batch: dense(batch)[0], images, labels),
        "rows": [_row(model, block, density, images, labels) for block in BLOCKS for density in DENSITIES],
        "masses": [_mass_row(model, mass, images, labels) for mass in MASSES],
    }
    machine = environment("torch", "timm", "scikit-learn")
    click.echo(write("demo_densities", "python -m benchmarks.demo_densities", found, machine))


if __name__ == "__main__":
    main()
