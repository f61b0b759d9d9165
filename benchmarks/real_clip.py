"""What pruning does to a real CLIP ViT-B/16 that was never trained for it: instances, groups and retrieval.

    python -m benchmarks.real_clip
    python -m benchmarks.real_clip --tower clip_encoder.int8.onnx --cutouts stamps/ --photographs backgrounds/

Photographic cut-outs are composed on photographs, in three folds that share no photograph. Each fold is answered by a
linear probe and by its neighbours among the dense features of the other folds: features are pruned where they are
asked about, dense where they were learned from. What is not given is downloaded; what cannot be is said, and skipped.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import THREADS, environment, write
from benchmarks.real_folds import BATCH, Fold
from benchmarks.real_inputs import TOWER_SHA256, WHEEL
from benchmarks.real_int8 import int8_features
from benchmarks.real_judge import Answered, C, differences, joined
from benchmarks.real_prepared import COMPOSITES, PRUNE_AT, SEED, Prepared, prepared_or_skipped, with_inputs
from benchmarks.selection_parts import MASS, Floats, Reading, counts_at, in_openvino, kept, mean_macs, reading
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.rivals import resolution_of_equal_macs
from sait_deploy.images.preprocess import preprocess
from sait_deploy.models.resize import resized
from sait_deploy.tokens import Geometry, dense_macs, kept_at_density, pruned_macs

DENSITIES: Final = tuple(map(Decimal, ("0.5", "0.3")))
INT8: Final = "int8"
KINDS: Final = (
    *(one.value for one in (Kind.DENSITY, Kind.MASS, Kind.RANDOM, Kind.LEAST_IMPORTANT, Kind.LOWER_RESOLUTION)),
    INT8,
)
SCORES: Final = (Reading.MEAN, Reading.CLS)


def points(
    prepared: Prepared, fold: Fold, tested: int, kinds: Collection[str]
) -> Iterator[tuple[str, Floats, NDArray[np.int32], float]]:
    """Yields each point's name, features, kept patch tokens and mean multiply-accumulates, of composites tested."""
    geometry = prepared.model.info.geometry
    asked, part = fold.asked(tested, COMPOSITES)
    patches, number = geometry.patch_tokens, len(asked)
    yield Kind.DENSE.value, prepared.dense(fold)[asked], np.full(number, patches, np.int32), float(dense_macs(geometry))
    for kind, name, importance, counts in _selections(part, geometry):
        if kind in kinds:
            keep = kept(importance, counts, geometry.prefix_tokens)
            features = part.kept_features(prepared.rest, keep, prepared.report)
            yield name, features, counts, mean_macs(geometry, PRUNE_AT, counts)
    if Kind.LOWER_RESOLUTION in kinds:
        yield _lower_resolution(prepared, fold, asked)
    if INT8 in kinds:
        half = kept_at_density(DENSITIES[0], patches)
        dense, pruned = int8_features(prepared, fold, asked, DENSITIES[0])
        yield f"dense {INT8}", dense, np.full(number, patches, np.int32), float(dense_macs(geometry))
        macs = float(pruned_macs(geometry, PRUNE_AT, half))
        yield f"{SCORES[0]} {DENSITIES[0]} {INT8}", pruned, np.full(number, half, np.int32), macs


def _selections(part: Fold, geometry: Geometry) -> Iterator[tuple[Kind, str, Floats, NDArray[np.int32]]]:
    """Yields kind, name, importance and patch tokens kept of what selects tokens."""
    number, _, patches = part.importance.shape
    chance = np.random.default_rng((SEED, part.number)).random((number, patches), np.float32)
    highest = reading(part.importance, SCORES[0])
    least = highest.max(1, keepdims=True) - highest
    for density in DENSITIES:
        counts = np.full(number, kept_at_density(density, patches), np.int32)
        macs = mean_macs(geometry, PRUNE_AT, counts)
        for score in SCORES:
            importance = reading(part.importance, score)
            yield Kind.DENSITY, f"{score} {density}", importance, counts
            own = counts_at(MASS, importance, functools.partial(mean_macs, geometry, PRUNE_AT), macs)[1]
            yield Kind.MASS, f"mass by {score}, as {density}", importance, own
        yield Kind.RANDOM, f"random {density}", chance / chance.sum(1, keepdims=True), counts
    half = np.full(number, kept_at_density(DENSITIES[0], patches), np.int32)
    yield Kind.LEAST_IMPORTANT, f"least important {DENSITIES[0]}", least / least.sum(1, keepdims=True), half


def _lower_resolution(
    prepared: Prepared, fold: Fold, asked: NDArray[np.intp]
) -> tuple[str, Floats, NDArray[np.int32], float]:
    """Returns the dense model at the image size of as many multiply-accumulates as the first density."""
    info = prepared.model.info
    macs = pruned_macs(info.geometry, PRUNE_AT, kept_at_density(DENSITIES[0], info.geometry.patch_tokens))
    size = resolution_of_equal_macs(info.geometry, info.image_size, info.patch_size, macs)
    assert size is not None
    small = resized(prepared.model, size)
    name = f"dense at {size[0]} px"

    def make() -> Floats:
        run = in_openvino(small.vit, torch.zeros(2, 3, *size), prepared.precision, THREADS)
        preprocessing = dataclasses.replace(prepared.preprocessing, image_size=size, resize=size)
        parts = []
        for first in range(0, len(asked), BATCH):
            parts.append(run(preprocess(list(fold.pixels[asked[first : first + BATCH]]), preprocessing))[0])
            prepared.report(f"fold {fold.number}, {name}", min(1.0, (first + BATCH) / len(asked)))
        return np.concatenate(parts)

    geometry = small.info.geometry
    kept_all = np.full(len(asked), geometry.patch_tokens, np.int32)
    return name, fold.features(name.replace(" ", "-"), make), kept_all, float(dense_macs(geometry))


def answers(prepared: Prepared, tested: int, kinds: Collection[str]) -> dict[str, Answered]:
    """Returns what each point has right, all folds together.

    Args:
        prepared: the tower and its composites.
        tested: composites of each cut-out in each fold that are asked about.
        kinds: of points beside dense.
    """
    parts: dict[str, list[Answered]] = {}
    for fold in prepared.folds:
        judge = prepared.judge(fold.number)
        asked, _ = fold.asked(tested, COMPOSITES)
        wanted = fold.instance[asked]
        for name, features, counts, macs in points(prepared, fold, tested, kinds):
            right = judge.right(features, asked)
            cutout = dict.fromkeys(right, wanted) | {"group": wanted[judge.grouped(asked)]}
            parts.setdefault(name, []).append(Answered(right, cutout, counts, macs))
    return {name: joined(found) for name, found in parts.items()}


def rows(found: dict[str, Answered]) -> list[dict[str, Any]]:
    """Returns a row for each point: what it has right, and what it gains over dense."""
    dense = found["dense"]
    return [
        {
            "point": name,
            "kept": {"mean": round(float(one.kept.mean()), 2), "sd": round(float(one.kept.std()), 2)},
            "mac_ratio": round(dense.macs / one.macs, 4),
            "percent_right": {m: round(100 * float(right.mean()), 3) for m, right in one.measures.items()},
            "change_from_dense": differences(one, dense),
        }
        for name, one in found.items()
    ]


def compared(found: dict[str, Answered]) -> list[dict[str, Any]]:
    """Returns attention against chance, and masses against densities of the same multiply-accumulates."""
    pairs = []
    for density in DENSITIES:
        for score in SCORES:
            pairs.append((f"{score} {density}", f"random {density}"))
            pairs.append((f"mass by {score}, as {density}", f"{score} {density}"))
    half = DENSITIES[0]
    lower = [name for name in found if name.startswith("dense at")]
    pairs += [(f"{score} {half}", other) for score in SCORES for other in (f"least important {half}", *lower)]
    pairs.append((f"{SCORES[0]} {half} {INT8}", f"dense {INT8}"))
    pairs = [(one, other) for one, other in pairs if one in found and other in found]
    return [{"first": a, "second": b, "difference": differences(found[a], found[b])} for a, b in pairs]


@click.command()
@with_inputs
@click.option("--kind", type=click.Choice(KINDS), multiple=True, help="Points; all by default.")
def main(tested: int, kind: tuple[str, ...], **given: Path) -> None:
    """Measure and write results/real_clip.json; what the folder has is not computed again."""
    prepared = prepared_or_skipped(**given)
    if prepared is None:
        return
    found = answers(prepared, tested, kind or KINDS)
    result = {
        "tower": {"wheel": WHEEL, "sha256": TOWER_SHA256, "as": prepared.model.info.name, "prune_at": PRUNE_AT},
        "images": {
            "cutouts": len(prepared.cutouts),
            "groups": len({one.group for one in prepared.cutouts}),
            "photographs": [len(fold.photographs) for fold in prepared.folds],
            "composites_learned_from": COMPOSITES * (len(prepared.folds) - 1),
            "composites_tested": tested * len(prepared.folds),
            "answers": {name: len(right) for name, right in found["dense"].measures.items()},
        },
        "products_in": prepared.precision,
        "probe": f"scikit-learn's LogisticRegression(C={C:g}) on dense features of unit length",
        "rows": rows(found),
        "comparisons": compared(found),
    }
    machine = environment("torch", "timm", "openvino", "scikit-learn")
    chosen = "".join(f" --kind {one}" for one in kind)
    command = f"python -m benchmarks.real_clip --tested {tested}{chosen}"
    click.echo(write("real_clip", command, result, machine))


if __name__ == "__main__":
    main()
