"""Which importance and which choice of a count select best, at equal multiply-accumulates on the same weights.

    python -m benchmarks.selection_rules digits
    python -m benchmarks.selection_rules many --folder build/many
    python -m benchmarks.selection_rules clip

The demonstration model answers composed images of a task, with the weights that ship or with every student that
``benchmarks.adapting`` trained; the CLIP tower the composites of ``benchmarks.real_clip``.
Levels of rules are set so that mean multiply-accumulates equal a density's on the images answered: no label is read. A
family's parameter is chosen on one set of images, and each family is judged on the others.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
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
from benchmarks.real_folds import Fold
from benchmarks.real_judge import Judge
from benchmarks.real_prepared import COMPOSITES, PRUNE_AT, Prepared, prepared_or_skipped, with_inputs
from benchmarks.selection_parts import (
    MASS,
    THRESHOLD,
    CountRule,
    Floats,
    Reading,
    Rest,
    Run,
    answered,
    by_calibration,
    by_power,
    counts_at,
    in_torch,
    kept,
    mean_macs,
    reading,
)
from benchmarks.selection_sets import BATCH, Composed, composed_stems
from sait_deploy import demo
from sait_deploy.cli._render import progress
from sait_deploy.demo import tasks as demo_tasks
from sait_deploy.evaluation.stats import paired_difference
from sait_deploy.models.registry import LoadedModel
from sait_deploy.tokens import Geometry, kept_at_density, pruned_macs
from sait_deploy.training.state import WEIGHTS_FILE

IMAGES: Final = 1500
CLIP_LEVELS: Final = tuple(map(Decimal, ("0.3", "0.1")))
LEVELS: Final = {
    "digits": tuple(map(Decimal, ("0.15", "0.1", "0.05"))),
    "many": tuple(map(Decimal, ("0.4", "0.28", "0.2", "0.15"))),
    "goods": tuple(map(Decimal, ("0.3", "0.15", "0.1"))),
}
"""Where densities lose what a rule could gain."""
FAMILIES: Final[dict[str, tuple[CountRule, ...]]] = {
    "mass": (MASS,),
    "power": tuple(map(by_power, (0.5, 2.0))),
    "threshold": (THRESHOLD,),
    "calibration": tuple(map(by_calibration, (0.25, 0.5, 0.75))),
}


@dataclass(frozen=True, slots=True)
class Images:
    """Images whose importance is known, and how those that keep some of their tokens are answered and judged.

    Attributes:
        name: of the set.
        importance: float32 [n, readings, N].
        answer: kept tokens, bool [n, P+N], to logits or features [n, C].
        right: those to whether each answer is right, bool [n].
    """

    name: str
    importance: Floats
    answer: Callable[[NDArray[np.bool_]], Floats]
    right: Callable[[Floats], NDArray[np.bool_]]


class Task:
    """A model's sizes and what answers were right: none is computed twice.

    Args:
        geometry: the model's sizes.
        prune_at: the block pruned in.
    """

    def __init__(self, geometry: Geometry, prune_at: int) -> None:
        self.geometry, self.prune_at = geometry, prune_at
        self._known: dict[tuple[str, bytes], NDArray[np.bool_]] = {}

    def right(self, images: Images, importance: Floats, counts: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Returns whether answers are right where images keep so many tokens of the highest importance."""
        keep = kept(importance, counts, self.geometry.prefix_tokens)
        key = images.name, np.packbits(keep).tobytes()
        if key not in self._known:
            self._known[key] = images.right(images.answer(keep))
        return self._known[key]

    def density(self, images: Images, how: Reading, level: Decimal) -> NDArray[np.bool_]:
        """Returns whether answers are right at a density."""
        importance = reading(images.importance, how)
        count = kept_at_density(level, self.geometry.patch_tokens)
        return self.right(images, importance, np.full(len(importance), count, np.int32))

    def counts(self, importance: Floats, rule: CountRule, level: Decimal) -> tuple[float, NDArray[np.int32]]:
        """Returns a rule's level at which images cost what a density costs, and their patch tokens kept."""
        cost = functools.partial(mean_macs, self.geometry, self.prune_at)
        return counts_at(rule, importance, cost, self._macs(level))

    def _macs(self, level: Decimal) -> int:
        return pruned_macs(self.geometry, self.prune_at, kept_at_density(level, self.geometry.patch_tokens))

    def rule(self, images: Images, how: Reading, rule: CountRule, level: Decimal) -> dict[str, Any]:
        """Returns what a rule for the count answers and costs at a density's multiply-accumulates."""
        importance = reading(images.importance, how)
        found, counts = self.counts(importance, rule, level)
        own, macs = mean_macs(self.geometry, self.prune_at, counts), self._macs(level)
        spread = {"mean": round(float(counts.mean()), 2), "sd": round(float(counts.std()), 2)}
        return {
            "right": self.right(images, importance, counts),
            "level": found,
            "kept": spread,
            "macs_of_density": round(own / macs, 4),
        }


def compared(task: Task, sets: Sequence[Images], levels: Sequence[Decimal], default: Reading) -> dict[str, Any]:
    """Returns readings against the default's and rules for counts against densities; the first set is chosen on."""
    choice, *judged = sets
    found: dict[str, Any] = {"chosen_on": choice.name, "judged_on": [one.name for one in judged], "default": default}
    found["readings"] = []
    for how in Reading:
        for level in levels:
            progress(f"{how} at {level}", None)
            rights = [(task.density(one, how, level), task.density(one, default, level)) for one in sets]
            row = {"reading": how, "density": str(level)} | paired(rights, [one.name for one in sets])
            found["readings"].append(row)
    best = _best_reading(found["readings"])
    found["best_reading_on_choice"] = best
    found["counts"] = []
    for how in dict.fromkeys((default, best)):
        for family, rules in FAMILIES.items():
            rule = _chosen(task, choice, how, rules, levels)
            for level in levels:
                progress(f"{how}, {rule.name} at {level}", None)
                kept_by = [task.rule(one, how, rule, level) for one in sets]
                pairs = [
                    (one["right"], task.density(images, how, level)) for one, images in zip(kept_by, sets, strict=True)
                ]
                last = {key: value for key, value in kept_by[-1].items() if key != "right"}
                row = {"reading": how, "family": family, "rule": rule.name, "density": str(level), "last_set": last}
                found["counts"].append(row | paired(pairs, [one.name for one in sets]))
    return found


def _best_reading(rows: list[dict[str, Any]]) -> Reading:
    """Returns the reading that is ahead on the choice set, mean over densities."""
    gains: dict[Reading, float] = {}
    for row in rows:
        gains[row["reading"]] = gains.get(row["reading"], 0.0) + row["choice"]["value"]
    return max(gains, key=lambda how: gains[how])


def _chosen(
    task: Task, choice: Images, how: Reading, rules: tuple[CountRule, ...], levels: Sequence[Decimal]
) -> CountRule:
    """Returns the rule of a family that has the most answers of the choice set right, over all levels."""
    if len(rules) == 1:
        return rules[0]
    return max(rules, key=lambda rule: sum(int(task.rule(choice, how, rule, one)["right"].sum()) for one in levels))


def paired(rights: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]], names: Sequence[str]) -> dict[str, Any]:
    """Returns accuracies and what the first gains over the second: of the choice set, of each judged one, of all."""
    parts = {name: dataclasses.asdict(paired_difference(*pair)) for name, pair in zip(names, rights, strict=True)}
    first, second = (np.concatenate(one) for one in zip(*rights[1:], strict=True))
    return {
        "percent_right": round(100 * float(first.mean()), 3),
        "percent_right_of_other": round(100 * float(second.mean()), 3),
        "choice": parts[names[0]],
        "judged": {name: parts[name] for name in names[1:]},
        "all_judged": dataclasses.asdict(paired_difference(first, second)),
    }


def composed_sets(
    model: LoadedModel, task: demo_tasks.Task, prune_at: int, images: int, fashion: Path | None
) -> tuple[Task, list[Images]]:
    """Returns a task of the demonstration, with compositions of the seed chosen on and of those judged on."""
    rest, sets = in_torch(Rest(model.vit, prune_at)), []
    for one in composed_stems(model, task, prune_at, images, fashion):
        sets.append(as_images(one, rest))
    return Task(model.info.geometry, prune_at), sets


def as_images(composed: Composed, rest: Run) -> Images:
    """Returns composed images that the rest of the model answers."""
    answer = functools.partial(answered, rest, composed.tokens, batch=BATCH)
    return Images(composed.name, composed.importance, answer, composed.right)


def clip(prepared: Prepared, tested: int) -> tuple[Task, list[Images]]:
    """Returns the CLIP tower's task, told which cut-out is shown, with composites of each fold."""
    sets = []
    for fold in prepared.folds:
        asked, part = fold.asked(tested, COMPOSITES)
        answer = functools.partial(_features, part, prepared)
        right = functools.partial(_instance, prepared.judge(fold.number), asked)
        sets.append(Images(f"fold {fold.number}", part.importance, answer, right))
    return Task(prepared.model.info.geometry, PRUNE_AT), sets


def _features(part: Fold, prepared: Prepared, keep: NDArray[np.bool_]) -> Floats:
    return part.kept_features(prepared.rest, keep, prepared.report)


def _instance(judge: Judge, asked: NDArray[np.intp], features: Floats) -> NDArray[np.bool_]:
    return judge.right(features, asked)["instance"]


@click.group()
def main() -> None:
    """Measure and write results/selection_rules_TASK.json."""


def _composed_command(task: demo_tasks.Task) -> click.Command:
    @click.command(task.name, help=f"Judge by the demonstration model, on {task.words} that nothing was chosen on.")
    @click.option(
        "--images", type=click.IntRange(min=50), default=IMAGES, show_default=True, help="Of each seed's set."
    )
    @click.option("--folder", type=click.Path(path_type=Path), help="Of benchmarks.adapting's trainings.")
    @click.option("--fashion", type=click.Path(path_type=Path), metavar="DIR", help="Fashion-MNIST, which goods need.")
    def command(images: int, folder: Path | None, fashion: Path | None) -> None:
        torch.set_num_threads(1)  # most batches are small
        machine = environment("torch", "timm")
        files = [demo.WEIGHTS] if folder is None else sorted(folder.glob(f"student-*/{WEIGHTS_FILE}"))
        if not files or (folder is None and task is not demo_tasks.DIGITS):
            raise click.ClickException("there are no trained weights: give --folder of benchmarks.adapting's trainings")
        found = {
            "shipped" if folder is None else file.parent.name: _judged(file, task, images, fashion) for file in files
        }
        said = f"python -m benchmarks.selection_rules {task.name} --images {images}"
        said += "" if folder is None else f" --folder build/{task.name}"
        click.echo(write(f"selection_rules_{task.name}", said, {"images": images, "weights": found}, machine))

    return command


def _judged(file: Path, task: demo_tasks.Task, images: int, fashion: Path | None) -> dict[str, Any]:
    model = load(file)
    assert model.training is not None
    reading = Reading(model.training.score.value)
    return compared(*composed_sets(model, task, model.training.prune_at, images, fashion), LEVELS[task.name], reading)


for _task in demo_tasks.TASKS.values():
    main.add_command(_composed_command(_task))


@main.command("clip")
@with_inputs
def main_clip(tested: int, **given: Path) -> None:
    """Judge by the CLIP tower, told which cut-out is shown; the folds are those of benchmarks.real_clip."""
    machine = environment("torch", "timm", "openvino", "scikit-learn")
    prepared = prepared_or_skipped(**given)
    if prepared is not None:
        found = compared(*clip(prepared, tested), CLIP_LEVELS, Reading.MEAN)
        command = f"python -m benchmarks.selection_rules clip --tested {tested}"
        click.echo(write("selection_rules_clip", command, {"composites_tested": tested, **found}, machine))


if __name__ == "__main__":
    main()
