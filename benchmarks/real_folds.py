"""Composites of cut-outs on photographs in folds, and what a model's stem computed of them, kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.real_inputs import CutOut, compose
from benchmarks.selection_parts import Floats, Run, answered
from sait_deploy.system.progress import Progress

FOLDS: Final = 3
BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Fold:
    """Composites on photographs that no other fold has, and what was computed of them.

    Attributes:
        number: of the fold.
        photographs: names of its photographs.
        pixels: uint8 [n, side, side, 3].
        instance: number of each composite's cut-out, int64 [n].
        tokens: after the attention of the block pruned in, float16 [n, P+N, D].
        importance: float32 [n, readings, N].
        folder: where features are kept.
    """

    number: int
    photographs: tuple[str, ...]
    pixels: NDArray[np.uint8]
    instance: NDArray[np.int64]
    tokens: NDArray[np.float16]
    importance: Floats
    folder: Path

    def features(self, name: str, make: Callable[[], Floats]) -> Floats:
        """Returns features [n, D] of unit length that were made before under this name, or makes them."""
        place = self.folder / f"{name}.npy"
        if not place.is_file():
            found = make()
            np.save(place, found / np.linalg.norm(found, axis=1, keepdims=True))
        made: Floats = np.load(place)
        return made

    def kept_features(self, rest: Run, keep: NDArray[np.bool_], report: Progress) -> Floats:
        """Returns the features of composites whose kept tokens alone run on."""
        name = "dense" if keep.all() else f"kept-{hashlib.sha256(np.packbits(keep).tobytes()).hexdigest()[:16]}"
        step = f"fold {self.number}, {keep.sum(1).mean() - 1:.1f} tokens"
        return self.features(name, lambda: answered(rest, self.tokens, keep, BATCH, lambda done: report(step, done)))

    def asked(self, number: int, each: int) -> tuple[NDArray[np.intp], Fold]:
        """Returns the numbers of the first composites of each cut-out, and the fold with what was computed of them.

        Args:
            number: of composites of a cut-out.
            each: all composites of a cut-out.
        """
        chosen = np.flatnonzero(np.arange(len(self.instance)) % each < number)
        part = dataclasses.replace(self, tokens=self.tokens[chosen], importance=self.importance[chosen])
        return chosen, part


def composed(
    cutouts: list[CutOut], photographs: dict[str, Image.Image], each: int, side: int, seed: int
) -> list[tuple[tuple[str, ...], NDArray[np.uint8], NDArray[np.int64]]]:
    """Returns for each fold its photographs, its composites and their cut-outs; photographs are dealt by chance."""
    order = np.random.default_rng(seed).permutation(sorted(photographs))
    instance = np.repeat(np.arange(len(cutouts)), each)
    found = []
    for fold in range(FOLDS):
        names, rng = tuple(map(str, order[fold::FOLDS])), np.random.default_rng((seed, fold))
        pixels = [compose(cutouts[one], photographs[names[rng.integers(len(names))]], side, rng) for one in instance]
        found.append((names, np.stack(pixels), instance))
    return found


def folder_of(folder: Path, **made_of: Any) -> Path:
    """Returns the folder in which what is computed of these inputs is kept."""
    text = json.dumps(made_of, sort_keys=True, default=str)
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    return place


def computed(
    number: int,
    fold: tuple[tuple[str, ...], NDArray[np.uint8], NDArray[np.int64]],
    stem: Run,
    prepare: Callable[[NDArray[np.uint8]], Floats],
    folder: Path,
    report: Progress,
) -> Fold:
    """Returns a fold with what the stem computes of it, or what it computed before.

    Args:
        number: of the fold.
        fold: its photographs, composites and their cut-outs.
        stem: the first part of the model.
        prepare: composites to the model's input.
        folder: where it is kept.
        report: told what is done.
    """
    names, pixels, instance = fold
    place = folder / f"fold{number}"
    place.mkdir(exist_ok=True)
    if not (place / "importance.npy").is_file():
        parts: list[list[NDArray[Any]]] = []
        for first in range(0, len(pixels), BATCH):
            tokens, importance = stem(prepare(pixels[first : first + BATCH]))
            parts.append([tokens.astype(np.float16), importance.astype(np.float32)])
            report(f"fold {number}, first blocks", min(1.0, (first + BATCH) / len(pixels)))
        for name, made in zip(("tokens", "importance"), zip(*parts, strict=True), strict=True):
            np.save(place / f"{name}.npy", np.concatenate(made))
    tokens, importance = np.load(place / "tokens.npy", mmap_mode="r"), np.load(place / "importance.npy")
    return Fold(number, names, pixels, instance, tokens, importance, place)
