"""Composed images that rules of selection are chosen and judged on, up to the attention of the block pruned in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.selection_parts import Floats, Stem, in_torch
from sait_deploy.cli._render import progress
from sait_deploy.demo.data import Split, stacked
from sait_deploy.demo.tasks import Task, composed_scenes
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
    """

    name: str
    tokens: Floats
    importance: Floats
    labels: NDArray[np.int64]

    def right(self, logits: Floats) -> NDArray[np.bool_]:
        """Returns where the likeliest class is the label."""
        found: NDArray[np.bool_] = logits.argmax(1) == self.labels
        return found


def composed_stems(
    model: LoadedModel, task: Task, prune_at: int, images: int, fashion: Path | None
) -> Iterator[Composed]:
    """Yields held-out compositions of the seed chosen on, then of those judged on.

    Args:
        model: with a class token.
        task: of the demonstration.
        prune_at: the block pruned in.
        images: of each seed.
        fashion: folder of Fashion-MNIST, which goods need.
    """
    stem = in_torch(Stem(model.vit, prune_at))
    for seed in (CHOICE_SEED, *JUDGE_SEEDS):
        pixels, labels = stacked(composed_scenes(task, Split.HELD_OUT, images, seed, fashion))
        batches = np.array_split(pixels, -(-images // _STEM_BATCH))
        parts = [stem(preprocess(list(part), model.preprocessing)) for part in batches]
        tokens, importance = (np.concatenate(one) for one in zip(*parts, strict=True))
        progress(f"{task.name}, seed {seed}", None)
        yield Composed(f"seed {seed}", tokens, importance, labels)
