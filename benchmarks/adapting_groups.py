"""Who gains by a mass and who pays: masses against densities of equal multiply-accumulates, by what images show.

    python -m benchmarks.adapting_groups many --folder build/many
    python -m benchmarks.adapting_groups goods --folder build/goods --fashion DIR

Every student that ``benchmarks.adapting`` trained answers compositions of three seeds that nothing was chosen on; they
are divided by their number of digits, or by the share of the frame that a product takes. Intervals are paired by image,
and the answers of all students to one image are one draw.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import environment, write
from benchmarks.demo_runs import load
from benchmarks.selection_parts import MASS, Reading, Rest, Run, by_clusters, in_torch, reading
from benchmarks.selection_rules import LEVELS, Task, as_images
from benchmarks.selection_sets import JUDGE_SEEDS, Composed, composed_stems
from sait_deploy.cli._render import progress
from sait_deploy.demo import tasks as demo_tasks
from sait_deploy.training.state import WEIGHTS_FILE

IMAGES: Final = 1000
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """A set's answers at a density: right by it, by the mass that costs as much, and dense, bool [n] each, with counts.

    Attributes:
        density: right at the density.
        mass: right at the mass.
        dense: right with nothing pruned.
        kept: patch tokens that the mass keeps, int32 [n].
        image: number of the image, the same for every student, int64 [n].
    """

    density: Bools
    mass: Bools
    dense: Bools
    kept: NDArray[np.int32]
    image: NDArray[np.int64]


def answers(task: Task, composed: Composed, rest: Run, how: Reading, level: Decimal, first: int) -> Answers:
    """Returns what a set's images, numbered from ``first``, are answered at a density and at a mass as costly."""
    images = as_images(composed, rest)
    importance = reading(images.importance, how)
    _, kept = task.counts(importance, MASS, level)
    dense = task.density(images, how, Decimal(1))
    number = np.arange(first, first + len(kept))
    return Answers(task.density(images, how, level), task.right(images, importance, kept), dense, kept, number)


def rows(names: tuple[str, ...], numbers: NDArray[np.int64], level: Decimal, found: Answers) -> list[dict[str, Any]]:
    """Returns for each group what density and mass change from dense, and what the mass gains over the density."""
    made = []
    for number, name in enumerate(names):
        part = numbers == number
        density, mass, dense, image = (one[part] for one in (found.density, found.mass, found.dense, found.image))
        made.append(
            {
                "density": str(level),
                "group": name,
                "images": len(np.unique(image)),
                "dense_percent_right": round(100 * float(dense.mean()), 3),
                "mass_kept_mean": round(float(found.kept[part].mean()), 2),
                "density_change": dataclasses.asdict(by_clusters(density, dense, image)),
                "mass_change": dataclasses.asdict(by_clusters(mass, dense, image)),
                "gain": dataclasses.asdict(by_clusters(mass, density, image)),
            }
        )
    return made


def measured(files: list[Path], task: demo_tasks.Task, images: int, fashion: Path | None) -> list[dict[str, Any]]:
    """Returns the rows of all students together."""
    parts: dict[Decimal, list[Answers]] = {level: [] for level in LEVELS[task.name]}
    numbers, names = [], ()
    for file in files:
        model = load(file)
        assert model.training is not None
        prune_at, how = model.training.prune_at, Reading(model.training.score.value)
        judged, rest = Task(model.info.geometry, prune_at), in_torch(Rest(model.vit, prune_at))
        first = 0
        for composed in composed_stems(model, task, prune_at, images, fashion, JUDGE_SEEDS):
            progress(f"{file.parent.name}, {composed.name}", None)
            names = composed.grouping.groups
            numbers.append(composed.grouping.of)
            for level, found in parts.items():
                found.append(answers(judged, composed, rest, how, level, first))
            first += len(composed.grouping.of)
    of, made = np.concatenate(numbers), []
    for level, found in parts.items():
        joined = Answers(*(np.concatenate(one) for one in zip(*map(dataclasses.astuple, found), strict=True)))
        made += rows(names, of, level, joined) + rows(("all",), np.zeros_like(of), level, joined)
    return made


@click.command()
@click.argument("name", type=click.Choice([demo_tasks.MANY.name, demo_tasks.GOODS.name]))
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Of benchmarks.adapting's trainings.")
@click.option("--fashion", type=click.Path(path_type=Path), metavar="DIR", help="Fashion-MNIST, which goods need.")
@click.option("--images", type=click.IntRange(min=50), default=IMAGES, show_default=True, help="Of each seed's set.")
def main(name: str, folder: Path, fashion: Path | None, images: int) -> None:
    """Measure and write results/adapting_groups_TASK.json."""
    torch.set_num_threads(1)  # most batches are small
    machine, task = environment("torch", "timm"), demo_tasks.TASKS[name]
    files = sorted(folder.glob(f"student-*/{WEIGHTS_FILE}"))
    if not files:
        raise click.ClickException("there are no trained weights: give --folder of benchmarks.adapting's trainings")
    found = {
        "images_of_each_seed": images,
        "judged_on": list(JUDGE_SEEDS),
        "students": [file.parent.name for file in files],
        "rows": measured(files, task, images, fashion),
    }
    command = f"python -m benchmarks.adapting_groups {name} --folder build/{name} --images {images}"
    click.echo(write(f"adapting_groups_{name}", command, found, machine))


if __name__ == "__main__":
    main()
