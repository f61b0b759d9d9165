"""How the demonstration model is trained: a dense teacher, then from its weights one set for all densities."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sait_deploy.training.options import Alternation, Amp, DataOptions, DensityRange, MassRange, Recipe, TrainOptions

TEACHER_EPOCHS: Final = 25
STUDENT_EPOCHS: Final = 6
DENSITIES: Final = DensityRange(0.03, 0.75)
MASSES: Final = MassRange(0.4, 0.97)
_DATA: Final = DataOptions(epoch_images=6400, validation_images=500)


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


def teacher_options(output: Path, seed: int = 0) -> TrainOptions:
    """Returns the training of the dense teacher, from random weights."""
    recipe = _recipe(TEACHER_EPOCHS, 3e-3, 0.997, TEACHER_EPOCHS + 1)
    return TrainOptions(output, _DATA, recipe, alternation=Alternation.NEVER, seed=seed)


def student_options(output: Path, seed: int = 0, alternation: Alternation = Alternation.BATCH) -> TrainOptions:
    """Returns the training of the student, from the teacher's weights; never sparse, it is dense training as long."""
    recipe = _recipe(STUDENT_EPOCHS, 1e-3, 0.99)
    if alternation is Alternation.NEVER:
        return TrainOptions(output, _DATA, recipe, alternation=alternation, seed=seed)
    return TrainOptions(output, _DATA, recipe, alternation=alternation, densities=DENSITIES, masses=MASSES, seed=seed)
