"""How the demonstration model is trained: a dense teacher, then from its weights one set for all densities."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sait_deploy.demo.tasks import DIGITS, Task
from sait_deploy.training.options import Alternation, Amp, DataOptions, DensityRange, MassRange, Recipe, TrainOptions

TEACHER_EPOCHS: Final = 25
FURTHER_EPOCHS: Final = 12
"""Of teachers of further tasks, which begin at the weights that ship: they know photographs, strokes and clutter."""

STUDENT_EPOCHS: Final = 6
DENSITIES: Final = DensityRange(0.03, 0.75)
MASSES: Final = MassRange(0.4, 0.97)


def data_options(task: Task = DIGITS, fashion: Path | None = None) -> DataOptions:
    """Returns what a task is trained on."""
    return DataOptions(task.source, epoch_images=6400, validation_images=500, fashion=fashion)


_DIGITS: Final = data_options()


def _recipe(epochs: int, learning_rate: float, ema_decay: float, schedule_epochs: int | None = None) -> Recipe:
    return Recipe(
        epochs=epochs,
        schedule_epochs=schedule_epochs,
        optimizer="nadamuon",
        learning_rate=learning_rate,
        least_learning_rate=1e-5,
        label_smoothing=0.05,
        ema_decay=ema_decay,
        amp=Amp.BF16,
    )


def teacher_options(output: Path, seed: int = 0, data: DataOptions = _DIGITS) -> TrainOptions:
    """Returns the training of the dense teacher: from random weights, and of further tasks from those that ship."""
    epochs = TEACHER_EPOCHS if data.task is DIGITS else FURTHER_EPOCHS
    recipe = _recipe(epochs, 3e-3, 0.997, epochs + 1)
    return TrainOptions(output, data, recipe, alternation=Alternation.NEVER, seed=seed)


def student_options(
    output: Path, seed: int = 0, alternation: Alternation = Alternation.BATCH, data: DataOptions = _DIGITS
) -> TrainOptions:
    """Returns the training of the student, from the teacher's weights; never sparse, it is dense training as long."""
    recipe = _recipe(STUDENT_EPOCHS, 1e-3, 0.99)
    if alternation is Alternation.NEVER:
        return TrainOptions(output, data, recipe, alternation=alternation, seed=seed)
    return TrainOptions(output, data, recipe, alternation=alternation, densities=DENSITIES, masses=MASSES, seed=seed)
