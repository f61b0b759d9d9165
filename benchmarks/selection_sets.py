"""Composed images that rules of selection are chosen and judged on, up to the attention of the block pruned in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.selection_parts import Floats, Stem, in_torch
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import Split, stacked
from sait_deploy.demo.goods import GoodsScene
from sait_deploy.demo.many import ManyScene
from sait_deploy.demo.tasks import Task, composed_scenes
from sait_deploy.evaluation.strata import Grouping
from sait_deploy.images.preprocess import preprocess
from sait_deploy.models.registry import LoadedModel

CHOICE_SEED: Final = 40
JUDGE_SEEDS: Final = (41, 42, 43)
BATCH: Final = 256
_STEM_BATCH: Final = 128


@dataclass(frozen=True, slots=True)
class Composed:
    """Composed images behind the attention of the block pruned in.

    Attributes:
        name: of the set.
        tokens: float32 [n, P+N, D].
        importance: float32 [n, readings, N].
        labels: int64 [n].
        grouping: what the images may be divided by.
    """

    name: str
    tokens: Floats
    importance: Floats
    labels: NDArray[np.int64]
    grouping: Grouping

    def right(self, logits: Floats) -> NDArray[np.bool_]:
        """Returns where the likeliest class is the label."""
        found: NDArray[np.bool_] = logits.argmax(1) == self.labels
        return found


def composed_stems(
    model: LoadedModel,
    task: Task,
    prune_at: int,
    images: int,
    fashion: Path | None,
    seeds: Sequence[int] = (CHOICE_SEED, *JUDGE_SEEDS),
) -> Iterator[Composed]:
    """Yields held-out compositions of each seed: of the one chosen on, then of those judged on.

    Args:
        model: with a class token.
        task: of the demonstration.
        prune_at: the block pruned in.
        images: of each seed.
        fashion: folder of Fashion-MNIST, which goods need.
        seeds: of the compositions.
    """
    stem = in_torch(Stem(model.vit, prune_at))
    for seed in seeds:
        scenes = composed_scenes(task, Split.HELD_OUT, images, seed, fashion)
        pixels, labels = stacked(scenes)
        batches = np.array_split(pixels, -(-images // _STEM_BATCH))
        parts = [stem(preprocess(list(part), model.preprocessing)) for part in batches]
        tokens, importance = (np.concatenate(one) for one in zip(*parts, strict=True))
        progress(f"{task.name}, seed {seed}", None)
        yield Composed(f"seed {seed}", tokens, importance, labels, grouping(scenes))


def grouping(scenes: Sequence[object]) -> Grouping:
    """Divides composed images by their number of digits, or by the share of the frame that a product takes, if any."""
    many = [scene.digits - 1 for scene in scenes if isinstance(scene, ManyScene)]
    if many:
        return Grouping("digits", tuple(map(str, range(1, 7))), np.array(many))
    shares = [scene.share for scene in scenes if isinstance(scene, GoodsScene)]
    if not shares:
        return Grouping("all", ("all",), np.zeros(len(scenes), np.int64))
    names = ("20 to 35 %", "35 to 50 %", "50 to 65 %", "65 to 80 %")
    return Grouping("share of the frame", names, np.digitize(shares, (0.35, 0.5, 0.65)))
