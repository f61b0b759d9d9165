"""Whether a student can learn how many tokens an image needs: sparse steps by mass whose loss charges kept tokens.

    python -m benchmarks.learned_count train --folder build/many --variant "price 1"
    python -m benchmarks.learned_count evaluate --folder build/many

Trains the student of *many* as ``benchmarks.adapting`` does, from the same teacher, with the same images, steps and
draws. Kept tokens have a price in steps by mass: their number is charged, and each is gated in later attention. Both
have a straight-through gradient. The forward pass is that of the recipe; the backward pass takes the step at the mass,
which keeps a token or drops it, for a sigmoid. No parameter is added. An image whose answer suffers from fewer tokens
can spread its importance, and pays for it; others can concentrate theirs.

Students learn from their teacher's class token: see the patent notice in the README. The licence of this project grants
nothing there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.common import environment, read_json, write
from benchmarks.demo_runs import load
from benchmarks.selection_parts import MASS, Reading
from benchmarks.selection_rules import LEVELS, Images, Task, composed_sets, paired
from sait_deploy.cli._render import progress
from sait_deploy.demo.tasks import MANY
from sait_deploy.models.transformer import Heads, Layout
from sait_deploy.plugins.lanes import attend_lanes, lanes_of
from sait_deploy.tokens import OperatingPoint, Score
from sait_deploy.training import loop
from sait_deploy.training.demonstration import data_options, student_options
from sait_deploy.training.layouts import DifferentiablePacked
from sait_deploy.training.losses import Losses, losses_of
from sait_deploy.training.state import WEIGHTS_FILE
from sait_deploy.training.student import Student
from sait_deploy.training.train import train

WIDTH: Final = 0.05
"""Of the sigmoid that the backward pass takes for the step at the mass, as a share of importance."""
IMAGES: Final = 1000
TODAY: Final = "today's recipe"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a step by mass adds to today's recipe.

    Attributes:
        price: of keeping all patch tokens of an image, in units of the loss.
        gate: factor of the gradient that the answer's loss has by keeping a token or not; 0 for none.
    """

    price: float
    gate: float


VARIANTS: Final = {"price 1": Charge(1.0, 1.0), "price 1, no gate": Charge(1.0, 0.0), "price 4": Charge(4.0, 1.0)}


class ChargedPass(NamedTuple):
    """A training pass as ``training.student.Pass``, and the share of patch tokens kept, with its gradient."""

    logits: Tensor
    importance: Tensor
    density: float | None
    share: Tensor | None


@dataclass(frozen=True, slots=True)
class GatedPacked(DifferentiablePacked):
    """Packed images whose kept tokens' gates, [B, 1, W, 1] and 0 in the forward pass, are added to scores."""

    gates: Tensor

    def attend(self, heads: Heads) -> Tensor:
        """Runs attention, each key with its gate."""
        rows = heads.qkv.index_select(0, self.slots.flatten())
        q, k, v = lanes_of(rows, self.slots, heads.num_heads)
        gates = self.gates.to(k.dtype).expand(*k.shape[:3], 1)
        q, k = F.pad(q, (0, 1), value=1 / heads.scale), torch.cat([k, gates], dim=3)  # adds the gate to each score
        y, _ = attend_lanes(q, k, v, heads.scale, self.mask, dropout=heads.dropout)
        return y.flatten(0, 1).index_select(0, self.unslots)


def soft_keep(importance: Tensor, mass: float) -> Tensor:
    """Returns how much each token is kept, float32 [B, N]: a sigmoid of the mass less what ranks before it hold."""
    ranked, order = importance.sort(dim=1, descending=True, stable=True)
    before = ranked.cumsum(dim=1) - ranked
    return torch.empty_like(before).scatter(1, order, torch.sigmoid((mass - before) / WIDTH))


class ChargedStudent(Student):
    """A student whose passes by mass know what they kept, with a gradient.

    Args:
        vit: as ``Student`` has it.
        score: likewise.
        prune_at: likewise.
        charge: factor of the gates' gradient.
    """

    def __init__(self, vit: nn.Module, score: Score, prune_at: int, *, charge: Charge) -> None:
        super().__init__(vit, score, prune_at)
        self._charge = charge
        self._share: Tensor | None = None

    def forward(self, images: Tensor, point: OperatingPoint | None) -> ChargedPass:  # type: ignore[override]
        """Classifies a batch."""
        self._share = None
        found = super().forward(images, point)
        return ChargedPass(*found, self._share)

    def _kept(self, importance: Tensor, point: OperatingPoint) -> tuple[Tensor, Layout]:
        kept, layout = super()._kept(importance, point)
        if not isinstance(layout, DifferentiablePacked):
            return kept, layout
        soft = soft_keep(importance.float(), point.mass)
        self._share = soft.mean()
        flat = F.pad(self._charge.gate * (soft - soft.detach()), (self.prefix, 0)).flatten()
        gates = flat.index_select(0, kept).index_select(0, layout.slots.flatten())
        shape = (len(layout.slots), 1, layout.slots.shape[1], 1)
        return kept, GatedPacked(layout.slots, layout.unslots, layout.mask, gates.reshape(shape))


def charged_losses(charge: Charge, found: ChargedPass, *given: Any) -> Losses:
    """Returns a step's losses with the price of what it kept."""
    losses = losses_of(found, *given)  # type: ignore[arg-type]
    if found.share is None:
        return losses
    return dataclasses.replace(losses, total=losses.total + charge.price * found.share)


def folder_of(folder: Path, variant: str) -> Path:
    """Returns where a variant of the training is."""
    return folder / ("student-0" if variant == TODAY else f"{variant.replace(', ', '-').replace(' ', '-')}-0")


@click.group()
def main() -> None:
    """Train students that are charged for tokens, and compare them with today's."""


_folder_option = click.option("--folder", type=click.Path(path_type=Path), required=True, help="Of adapting's many.")


@main.command(name="train")
@_folder_option
@click.option("--variant", "variants", type=click.Choice(list(VARIANTS)), multiple=True, help="[default: all]")
def train_command(folder: Path, variants: tuple[str, ...]) -> None:
    """Train what is not trained yet, of seed 0, from the teacher that benchmarks.adapting trained."""
    torch.set_num_threads(1)  # so that sums are added in the same order on any number of cores
    taught = folder / "teacher-0" / WEIGHTS_FILE
    for variant in variants or VARIANTS:
        progress(variant)
        charge = VARIANTS[variant]
        options = student_options(folder_of(folder, variant), 0, data=data_options(MANY))
        # The loop of the toolkit has no such option: its student and its losses are replaced for this training.
        parts = {
            "Student": functools.partial(ChargedStudent, charge=charge),
            "losses_of": functools.partial(charged_losses, charge),
        }
        with mock.patch.multiple(loop, **parts):
            train(load(taught), load(taught), options, progress)


@main.command(name="evaluate")
@_folder_option
@click.option("--images", type=click.IntRange(min=50), default=IMAGES, show_default=True, help="Of each seed's set.")
def evaluate_command(folder: Path, images: int) -> None:
    """Answer held-out compositions with all students that are trained, and write the result file."""
    torch.set_num_threads(1)
    machine = environment("torch", "timm", "accelerate")
    trained = [one for one in (TODAY, *VARIANTS) if (folder_of(folder, one) / WEIGHTS_FILE).is_file()]
    if TODAY not in trained:
        raise click.ClickException("there is no student of today's recipe: train it by benchmarks.adapting")
    answers = {variant: _answers(folder_of(folder, variant) / WEIGHTS_FILE, images) for variant in trained}
    rows = [_row(answers, variant, way, level) for variant in trained for way in _WAYS for level in LEVELS[MANY.name]]
    found = {
        "images": images,
        "charges": {variant: dataclasses.asdict(VARIANTS[variant]) for variant in trained if variant != TODAY},
        "rows": rows,
        "logs": {variant: read_json(folder_of(folder, variant) / "log.json") for variant in trained},
    }
    command = f"python -m benchmarks.learned_count evaluate --folder build/many --images {images}"
    click.echo(write("learned_count", command, found, machine))


_WAYS: Final = ("density", "mass")


@dataclass(frozen=True, slots=True)
class Answers:
    """A student's answers: by way and density, whether each set's are right, bool [n] each, and what was kept last."""

    names: Sequence[str]
    right: Mapping[tuple[str, Decimal], list[NDArray[np.bool_]]]
    last: Mapping[tuple[str, Decimal], dict[str, Any]]


def _answers(weights: Path, images: int) -> Answers:
    model = load(weights)
    assert model.training is not None
    task, sets = composed_sets(model, MANY, model.training.prune_at, images, None)
    how = Reading(model.training.score.value)
    found: dict[tuple[str, Decimal], list[NDArray[np.bool_]]] = {}
    last: dict[tuple[str, Decimal], dict[str, Any]] = {}
    for level in LEVELS[MANY.name]:
        by_mass = [task.rule(one, how, MASS, level) for one in sets]
        found["density", level] = [task.density(one, how, level) for one in sets]
        found["mass", level] = [one.pop("right") for one in by_mass]
        last["density", level], last["mass", level] = {}, by_mass[-1]
    found["dense", Decimal(1)] = [_dense(task, one) for one in sets]
    return Answers([one.name for one in sets], found, last)


def _dense(task: Task, images: Images) -> NDArray[np.bool_]:
    return task.density(images, Reading.MEAN, Decimal(1))


def _row(answers: Mapping[str, Answers], variant: str, way: str, level: Decimal) -> dict[str, Any]:
    """Returns what a student answers by density or mass, and gains over today's student at the same cost."""
    own, today = answers[variant], answers[TODAY]
    over = {
        f"over today's {other}": paired(
            list(zip(own.right[way, level], today.right[other, level], strict=True)), own.names
        )
        for other in _WAYS
    }
    own_density = paired(list(zip(own.right[way, level], own.right["density", level], strict=True)), own.names)
    dense = np.concatenate(own.right["dense", Decimal(1)][1:])
    return {
        "recipe": variant,
        "by": way,
        "density": str(level),
        "percent_right": own_density["percent_right"],
        "dense_percent_right": round(100 * float(dense.mean()), 3),
        "last_set": own.last[way, level],
        **over,
        "over its own density": own_density,
    }


if __name__ == "__main__":
    main()
