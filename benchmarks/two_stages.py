"""Pruning in one block against pruning in two, at equal multiply-accumulates on the same weights.

    python -m benchmarks.two_stages answers --task digits
    python -m benchmarks.two_stages answers --task many --folder build/many
    python -m benchmarks.two_stages times

In the block that the weights were trained to be pruned in, images keep more tokens than at a density. A second
selection in a later block, by the importance that is read there, keeps so few of these that both together cost what the
density costs. Which block that is, and how many more tokens the first one keeps, is chosen on one set of images and
judged on others. No weights were trained for two stages. ``times`` measures DeiT-S with random weights.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import THREADS, environment, write
from benchmarks.demo_runs import load
from benchmarks.graphs import graph_in_place, own_forms
from benchmarks.peers_cpu import BATCHES, MODEL, Method, times
from benchmarks.selection_parts import (
    MASS,
    CountRule,
    Floats,
    Reading,
    Rest,
    answered,
    counts_at,
    in_groups,
    in_torch,
    kept,
    mean_macs,
    reading,
)
from benchmarks.selection_rules import LEVELS, as_images, paired
from benchmarks.selection_rules import Task as OneStage
from benchmarks.selection_sets import BATCH, Composed, composed_stems
from benchmarks.stages import EVEN, Between, Twice, mean_staged_macs, staged_macs
from sait_deploy import demo
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.cli._render import progress
from sait_deploy.demo.tasks import DIGITS, TASKS, Task
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.tokens import Score, dense_macs, kept_at_density, pruned_macs
from sait_deploy.training.state import WEIGHTS_FILE

STRETCHES: Final = (1.25, 1.5, 2.0)
"""How many times the density's tokens the first stage keeps."""
WAYS: Final[dict[str, tuple[CountRule, CountRule]]] = {
    "density, then density": (EVEN, EVEN),
    "density, then mass": (EVEN, MASS),
    "mass, then mass": (MASS, MASS),
}
IMAGES: Final = 1000
TIMED: Final = tuple(map(Decimal, ("0.5", "0.3")))
TIMED_STAGES: Final = ((6, 1.25), (8, 1.25), (6, 1.5))
"""Second block of twelve, and stretch."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The second block pruned in, and how many times the density's tokens the first one keeps."""

    block: int
    stretch: float

    def first(self, density: int, patches: int) -> int:
        """Returns what the first block keeps where a density keeps so many."""
        return min(patches, math.ceil(self.stretch * density))


@dataclass(frozen=True, slots=True)
class Found:
    """What two stages answer: whether each is right, bool [n], and tokens kept by each stage, int32 [n]."""

    right: NDArray[np.bool_]
    first: NDArray[np.int32]
    second: NDArray[np.int32]


class TwoStages:
    """A model pruned in two blocks.

    Args:
        model: with weights trained to be pruned in one.
    """

    def __init__(self, model: LoadedModel) -> None:
        assert model.training is not None
        self.geometry, self.prune_at = model.info.geometry, model.training.prune_at
        self.how, score = Reading(model.training.score.value), model.training.score
        blocks = range(self.prune_at + 1, self.geometry.depth - 1)
        self.grid = [Stages(block, stretch) for block in blocks for stretch in STRETCHES]
        self._between = {one: in_torch(Between(model.vit, self.prune_at, one, score)) for one in blocks}
        self._rest = {one: in_torch(Rest(model.vit, one)) for one in blocks}

    def answer(self, images: Composed, way: str, stages: Stages, level: Decimal) -> Found | None:
        """Returns what images are answered at a density's cost; None where the first stage alone costs more."""
        patches, prefix = self.geometry.patch_tokens, self.geometry.prefix_tokens
        importance, density = reading(images.importance, self.how), kept_at_density(level, patches)
        first = np.full(len(importance), stages.first(density, patches), np.int32)
        rule, later_rule = WAYS[way]
        if rule is MASS:
            one_stage = functools.partial(mean_macs, self.geometry, self.prune_at)
            _, first = counts_at(rule, importance, one_stage, one_stage(first))
        run, keep = self._between[stages.block], kept(importance, first, prefix)
        tokens, seen = zip(*in_groups(run, images.tokens, keep, BATCH), strict=True)
        later: Floats = np.zeros_like(importance)  # tokens that are gone have no importance and come last
        for row, own in zip(later, seen, strict=True):
            row[: len(own)] = own
        within = CountRule(later_rule.name, lambda *given: np.minimum(later_rule.counts(*given), first))
        cost = functools.partial(mean_staged_macs, self.geometry, self.prune_at, stages.block, first)
        most = pruned_macs(self.geometry, self.prune_at, density)
        _, second = counts_at(within, later, cost, most)
        if cost(second) > most:
            return None
        logits = answered(self._rest[stages.block], tokens, kept(later, second, prefix), BATCH)
        return Found(images.right(logits), first, second)


def compared(model: LoadedModel, task: Task, images: int, fashion: Path | None) -> dict[str, Any]:
    """Returns what each way to prune twice gains over pruning once; its stages are chosen on the first set."""
    two, levels = TwoStages(model), LEVELS[task.name]
    sets = list(composed_stems(model, task, two.prune_at, images, fashion))
    rest = in_torch(Rest(model.vit, two.prune_at))
    once, shown = OneStage(two.geometry, two.prune_at), [as_images(one, rest) for one in sets]
    others = {
        "density": {level: [once.density(one, two.how, level) for one in shown] for level in levels},
        "mass": {level: [once.rule(one, two.how, MASS, level)["right"] for one in shown] for level in levels},
    }
    names, rows, tried = [one.name for one in sets], [], []
    for way in WAYS:
        scores: dict[Stages, float] = {}
        for stages in two.grid:
            progress(f"{way}, block {stages.block}, {stages.stretch:g} times")
            found = [two.answer(sets[0], way, stages, level) for level in levels]
            rights = [100 * float(one.right.mean()) for one in found if one is not None]
            if len(rights) == len(levels):
                scores[stages] = sum(rights)
                tried.append({"way": way, **dataclasses.asdict(stages), "percent_right": rights})
        chosen = max(scores, key=lambda one: scores[one])
        for level in levels:
            answers = [one for each in sets if (one := two.answer(each, way, chosen, level)) is not None]
            own = [one.right for one in answers]
            kept_by = {"first": _spread(answers[-1].first), "second": _spread(answers[-1].second)}
            row = {"way": way, **dataclasses.asdict(chosen), "density": str(level), "kept in last set": kept_by}
            for other, rights_of in others.items():
                row[f"over {other}"] = paired(list(zip(own, rights_of[level], strict=True)), names)
            rows.append(row)
    return {"chosen_on": names[0], "judged_on": names[1:], "tried_on_choice": tried, "rows": rows}


def _spread(counts: NDArray[np.int32]) -> dict[str, float]:
    return {"mean": round(float(counts.mean()), 2), "sd": round(float(counts.std()), 2)}


@click.group()
def main() -> None:
    """Measure and write results/two_stages_TASK.json and results/two_stages_times.json."""


@main.command(name="answers")
@click.option("--task", "name", type=click.Choice(list(TASKS)), required=True)
@click.option("--images", type=click.IntRange(min=50), default=IMAGES, show_default=True, help="Of each seed's set.")
@click.option("--folder", type=click.Path(path_type=Path), help="Of trained students.")
@click.option("--fashion", type=click.Path(path_type=Path), metavar="DIR", help="Fashion-MNIST, which goods need.")
def answers_command(name: str, images: int, folder: Path | None, fashion: Path | None) -> None:
    """Judge two stages by the demonstration model's students of a task."""
    torch.set_num_threads(1)  # most batches are small
    machine, task = environment("torch", "timm"), TASKS[name]
    files = {"shipped": demo.WEIGHTS} if task is DIGITS else {}
    if folder is not None:
        files |= {file.parent.name: file for file in sorted(folder.glob(f"student-*/{WEIGHTS_FILE}"))}
    if not files:
        raise click.ClickException("there are no trained weights: give --folder of benchmarks.adapting's trainings")
    found = {student: compared(load(file), task, images, fashion) for student, file in files.items()}
    command = f"python -m benchmarks.two_stages answers --task {name} --images {images}"
    command += "" if folder is None else f" --folder build/{name}"
    click.echo(write(f"two_stages_{name}", command, {"images": images, "weights": found}, machine))


@main.command(name="times")
@click.option("--seconds", type=float, default=15.0, show_default=True, help="To measure for, per batch size.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/two-stages"), show_default=True)
def times_command(seconds: float, folder: Path) -> None:
    """Time DeiT-S at densities against two stages of equal cost; graphs in the folder are not exported again."""
    machine = environment("torch", "timm", "onnxruntime", "openvino")
    model = load_model(MODEL, WeightsRequest(WeightsSource.RANDOM))
    found = {}
    for density in TIMED:
        methods = _timed(model, density, folder / f"{MODEL}-{density}")
        own = times(methods, kept_at_density(density, model.info.geometry.patch_tokens), BATCHES, seconds)
        found[str(density)] = {"methods": {name: one.how for name, one in methods.items()}, **own}
    command = f"python -m benchmarks.two_stages times --seconds {seconds:g}"
    results = {"model": MODEL, "threads": THREADS, "densities": found}
    click.echo(write("two_stages_times", command, results, machine))


def _timed(model: LoadedModel, density: Decimal, folder: Path) -> dict[str, Method]:
    """Returns dense, a density, and two stages that cost at most as much, in the density's layout."""
    geometry, whole = model.info.geometry, dense_macs(model.info.geometry)
    dense, fixed, _ = own_forms(model, density, folder, progress)
    prune_at, kept_once = fixed.manifest.prune_at, kept_at_density(density, geometry.patch_tokens)
    assert prune_at is not None
    most = pruned_macs(geometry, prune_at, kept_once)
    found = {
        "dense": Method(dense, 1.0, "nothing pruned"),
        "density": Method(fixed, whole / most, f"{kept_once} patch tokens from block {prune_at} on"),
    }
    for block, stretch in TIMED_STAGES:
        first = Stages(block, stretch).first(kept_once, geometry.patch_tokens)
        costs = {later: staged_macs(geometry, prune_at, block, first, later) for later in range(1, first + 1)}
        later = max((one for one, cost in costs.items() if cost <= most), default=None)
        if later is None:
            continue
        module = Twice(model.vit, Score.MEAN, {prune_at: first, block: later})
        graph = graph_in_place(module, dense.manifest, folder / f"two-{block}-{first}-{later}", progress)
        how = f"{first} patch tokens from block {prune_at} on, {later} from block {block} on"
        found[f"block {block}, {stretch:g} times"] = Method(graph, whole / costs[later], how)
    return found


if __name__ == "__main__":
    main()
