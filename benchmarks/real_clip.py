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
import importlib.util
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import THREADS, environment, write
from benchmarks.real_folds import BATCH, Fold, composed, computed, folder_of
from benchmarks.real_inputs import (
    CUTOUT_PACKAGES,
    PHOTOGRAPH_PACKAGES,
    TOWER_SHA256,
    WHEEL,
    CutOut,
    Unavailable,
    WrongFile,
    fetched_package,
    fetched_tower,
    load_tower,
    read_cutouts,
    read_photographs,
)
from benchmarks.real_judge import Answered, C, Judge, differences, joined
from benchmarks.selection_parts import (
    MASS,
    Floats,
    Reading,
    Rest,
    Run,
    Stem,
    counts_at,
    in_openvino,
    kept,
    mean_macs,
    reading,
)
from sait_deploy.cli._render import progress
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.rivals import resolution_of_equal_macs
from sait_deploy.images.preprocess import Preprocessing, preprocess
from sait_deploy.models.registry import LoadedModel
from sait_deploy.models.resize import resized
from sait_deploy.runtime.openvino import shared_core
from sait_deploy.system.progress import Progress
from sait_deploy.tokens import Geometry, dense_macs, kept_at_density, pruned_macs

PACKAGES: Final = ("openvino", "onnx", "torch", "timm", "sklearn")
PRUNE_AT: Final = 3
COMPOSITES: Final = 4
SEED: Final = 0
SIDE: Final = 224
DENSITIES: Final = tuple(map(Decimal, ("0.5", "0.3")))
KINDS: Final = (Kind.DENSITY, Kind.MASS, Kind.RANDOM, Kind.LEAST_IMPORTANT, Kind.LOWER_RESOLUTION)
SCORES: Final = (Reading.MEAN, Reading.CLS)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The tower, cut in two, and the composites with what its first blocks make of them.

    Attributes:
        model: the tower.
        cutouts: what was composed.
        folds: the composites.
        rest: what follows the attention of the block pruned in.
        preprocessing: of composites.
        precision: that matrix products run in.
        report: told what is done.
    """

    model: LoadedModel
    cutouts: list[CutOut]
    folds: list[Fold]
    rest: Run
    preprocessing: Preprocessing
    precision: str
    report: Progress

    def judge(self, fold: int) -> Judge:
        """Returns what judges a fold: probes and a gallery of the other folds' dense features."""
        groups = [one.group for one in self.cutouts]
        return Judge(self.folds, [self.dense(one) for one in self.folds], groups, fold)

    def dense(self, fold: Fold) -> Floats:
        """Returns the features of a fold's composites with nothing pruned."""
        everything = np.ones(fold.tokens.shape[:2], bool)
        return fold.kept_features(self.rest, everything, self.report)


def prepare(tower: Path, cutouts: Path, photographs: Path, folder: Path, report: Progress) -> Prepared:
    """Returns the tower and its composites; what is in the folder is not computed again.

    Raises:
        Unavailable: a file is missing.
        WrongFile: the tower is another.
    """
    model, found, scenes = load_tower(tower), read_cutouts(cutouts), read_photographs(photographs)
    able = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = "bf16" if "BF16" in able else "f32"
    made_of = {"tower": TOWER_SHA256, "cutouts": [one.name for one in found], "photographs": sorted(scenes)}
    how = {"each": COMPOSITES, "side": SIDE, "seed": SEED, "prune_at": PRUNE_AT, "precision": precision}
    place = folder_of(folder, **made_of, **how)
    report(f"composing into {place}", 0.0)
    preprocessing = dataclasses.replace(model.preprocessing, resize=model.preprocessing.image_size)
    stem = in_openvino(Stem(model.vit, PRUNE_AT), torch.zeros(2, 3, SIDE, SIDE), precision, THREADS)
    width = model.info.geometry.width
    rest = in_openvino(Rest(model.vit, PRUNE_AT), torch.zeros(2, 2, width), precision, THREADS)
    folds = [
        computed(number, fold, stem, lambda part: preprocess(list(part), preprocessing), place, report)
        for number, fold in enumerate(composed(found, scenes, COMPOSITES, SIDE, SEED))
    ]
    return Prepared(model, found, folds, rest, preprocessing, precision, report)


def points(
    prepared: Prepared, fold: Fold, tested: int, kinds: Collection[Kind]
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


def answers(prepared: Prepared, tested: int, kinds: Collection[Kind]) -> dict[str, Answered]:
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
    pairs = [(one, other) for one, other in pairs if one in found and other in found]
    return [{"first": a, "second": b, "difference": differences(found[a], found[b])} for a, b in pairs]


def inputs(tower: Path | None, cutouts: Path | None, photographs: Path | None, folder: Path) -> tuple[Path, Path, Path]:
    """Returns where tower, cut-outs and photographs are; those that were not named are downloaded into the folder.

    Raises:
        Unavailable: one cannot be had.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f"{', '.join(missing)} missing", "pip install sait-deploy[export,openvino,train]")
    return (
        tower or fetched_tower(folder / "tower"),
        cutouts or fetched_package(CUTOUT_PACKAGES, folder / "cutouts", "--cutouts"),
        photographs or fetched_package(PHOTOGRAPH_PACKAGES, folder / "photographs", "--photographs"),
    )


def prepared_or_skipped(
    tower: Path | None, cutouts: Path | None, photographs: Path | None, folder: Path
) -> Prepared | None:
    """Returns the tower and its composites; None, with a line that says why, where they cannot be had.

    Raises:
        click.ClickException: the tower is another file.
    """
    try:
        return prepare(*inputs(tower, cutouts, photographs, folder), folder, progress)
    except Unavailable as error:
        click.echo(f"skipped: {error.message}: {error.hint}")
        return None
    except WrongFile as error:
        raise click.ClickException(f"{error.message}: {error.hint}") from error


def with_inputs(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say where everything is."""
    place, whole = click.Path(path_type=Path), click.IntRange(1, COMPOSITES)
    options = (
        click.option("--tower", type=place, help=f"The int8 ONNX file of {WHEEL}."),
        click.option("--cutouts", type=place, help=f"Folder with the files of {', '.join(CUTOUT_PACKAGES)}."),
        click.option("--photographs", type=place, help=f"Folder with the files of {', '.join(PHOTOGRAPH_PACKAGES)}."),
        click.option("--folder", type=place, default=Path("build/real_clip"), show_default=True, help="For all else."),
        click.option("--tested", type=whole, default=COMPOSITES, show_default=True, help="Composites a fold."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@with_inputs
@click.option("--kind", type=click.Choice([one.value for one in KINDS]), multiple=True, help="Points; all by default.")
def main(tested: int, kind: tuple[str, ...], **given: Path) -> None:
    """Measure and write results/real_clip.json; what the folder has is not computed again."""
    prepared = prepared_or_skipped(**given)
    if prepared is None:
        return
    found = answers(prepared, tested, [Kind(one) for one in kind] or KINDS)
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
