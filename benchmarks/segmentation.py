"""A linear segmentation head on pruned features of composed digits: mean IoU against dense, random pruning beside it.

    python -m benchmarks.segmentation

The shipped demonstration model is the backbone and is not trained further. A head is trained on the features that it is
judged on; beside that stands the head of dense features, put on pruned ones. A seed draws images, random tokens and the
order of patches. Images for training and for judging share no digit and no photograph.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any, Final

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import environment, write
from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import CLASSES, Split, compose_scenes, stacked, stacked_masks
from sait_deploy.images.preprocess import normalised
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.tokens import kept_at_density
from sait_deploy.training.linear_head import HeadOptions, LinearHead, feature_maps, mean_iou, train_head

DENSITIES: Final = tuple(map(Decimal, ("0.5", "0.3", "0.2", "0.1")))
SEEDS: Final = 3
TRAINED: Final = 600
JUDGED: Final = 300
ALL_CLASSES: Final = CLASSES + 1
"""Background is one."""

HEADS: Final = {"last block": (5,), "blocks 1, 3 and 5": (1, 3, 5)}
"""Blocks that a head reads."""

_BLOCKS: Final = (1, 3, 5)
_BATCH: Final = 50

Maps = dict[int, NDArray[np.float32]]
"""Block to its patches' features, [n, rows, columns, D + 1]: the last channel is whether a token was kept."""


class Images:
    """Composed images of one split and their masks, and the features that a model has of them."""

    def __init__(self, loaded: LoadedModel, split: Split, count: int, seed: int) -> None:
        scenes = compose_scenes(split, count, seed)
        self.pixels, self.masks = stacked(scenes)[0], stacked_masks(scenes)
        self._loaded, self._images = loaded, torch.from_numpy(normalised(self.pixels, loaded.preprocessing))

    @torch.inference_mode()
    def maps(self, pruning: FixedPruning | None, drawn: np.random.Generator | None = None) -> Maps:
        """Returns the features of all images; with ``drawn`` random tokens are kept, as many as the pruning keeps."""
        info, parts = self._loaded.info, []
        model = PrunableViT(self._loaded.vit, pruning, blocks=_BLOCKS)
        for batch in self._images.split(_BATCH):
            keep = None if drawn is None or pruning is None else _drawn(len(batch), info.geometry, pruning.kept, drawn)
            traced = model.trace(batch, keep=keep)
            kept = torch.ones(traced.blocks[0].shape[:2]) if traced.keep is None else traced.keep
            flags = kept.float().numpy()[..., None]
            parts.append([feature_maps([tokens.numpy(), flags], info) for tokens in traced.blocks])
        return {block: np.concatenate(one) for block, one in zip(_BLOCKS, zip(*parts, strict=True), strict=True)}


def _drawn(images: int, geometry: Any, kept: int, drawn: np.random.Generator) -> torch.Tensor:
    """Returns a random selection, int32 [images, P+N], prefix tokens kept."""
    order = drawn.random((images, geometry.patch_tokens)).argsort(1)
    keep = np.concatenate([np.ones((images, geometry.prefix_tokens), np.int32), (order < kept).astype(np.int32)], 1)
    return torch.from_numpy(keep)


def read(maps: Maps, blocks: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns what a head of some blocks reads: their features, and once whether the token was kept."""
    return np.concatenate([*(maps[block][..., :-1] for block in blocks), maps[blocks[-1]][..., -1:]], axis=-1)


def of_seed(loaded: LoadedModel, seed: int, trained: int, judged: int) -> dict[str, Any]:
    """Returns mean IoU in percent of each backbone and head, of one seed."""
    train = Images(loaded, Split.TRAIN, trained, 2 * seed + 1)
    test = Images(loaded, Split.HELD_OUT, judged, 2 * seed + 2)
    training, patches, size = loaded.training, loaded.info.geometry.patch_tokens, loaded.info.image_size
    assert training is not None
    found: dict[str, Any] = {}
    dense_heads: dict[str, LinearHead] = {}

    def judge(name: str, pruning: FixedPruning | None, draws: bool) -> None:
        drawn = [np.random.default_rng((seed, part)) if draws else None for part in range(2)]
        maps, others = train.maps(pruning, drawn[0]), test.maps(pruning, drawn[1])
        for head_name, blocks in HEADS.items():
            head = train_head(read(maps, blocks), train.masks, size, ALL_CLASSES, HeadOptions(seed=seed))
            dense_head = dense_heads.setdefault(head_name, head)
            both = {"own": head, "of dense": dense_head}
            scores = {
                how: round(100 * mean_iou(one.segment(read(others, blocks), size), test.masks, ALL_CLASSES), 2)
                for how, one in both.items()
            }
            found.setdefault(name, {})[head_name] = scores
        progress(f"seed {seed}, {name}: {found[name]}")

    judge("dense", None, draws=False)
    for density in DENSITIES:
        pruning = FixedPruning(training.score, training.prune_at, kept_at_density(density, patches))
        judge(f"density {density}", pruning, draws=False)
        judge(f"density {density}, random", pruning, draws=True)
    return found


def summarised(seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each backbone and head: mean and spread over seeds, of itself and of its gap to dense."""
    rows = []
    for name in seeds[0]:
        for head in HEADS:
            own = np.array([one[name][head]["own"] for one in seeds])
            put = np.array([one[name][head]["of dense"] for one in seeds])
            gap = own - np.array([one["dense"][head]["own"] for one in seeds])
            figures = {"mean_iou": own, "over_dense": gap, "dense_head_mean_iou": put}
            rows.append({"backbone": name, "head": head, **{key: _spread(each) for key, each in figures.items()}})
    return rows


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    return {"mean": round(float(values.mean()), 2), "sd": round(float(values.std(ddof=1)), 2)}


@click.command()
@click.option("--trained", type=click.IntRange(min=20), default=TRAINED, show_default=True, help="Images of a head.")
@click.option("--judged", type=click.IntRange(min=20), default=JUDGED, show_default=True, help="Images of a figure.")
def main(trained: int, judged: int) -> None:
    """Measure and write results/segmentation.json."""
    torch.set_num_threads(1)
    machine, began = environment("torch", "timm", "scikit-learn", "scikit-image"), time.perf_counter()
    loaded = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    seeds = [of_seed(loaded, seed, trained, judged) for seed in range(SEEDS)]
    found = {
        "trained_on": trained,
        "judged_on": judged,
        "classes": ALL_CLASSES,
        "seconds": round(time.perf_counter() - began),
        "rows": summarised(seeds),
        "seeds": seeds,
    }
    command = f"python -m benchmarks.segmentation --trained {trained} --judged {judged}"
    click.echo(write("segmentation", command, found, machine))


if __name__ == "__main__":
    main()
