"""What an evaluation says of densities and masses that the weights did not meet in training."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.artifacts.points import PointRequest, mass_point
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.evaluation.rows import of_density, of_point
from sait_deploy.evaluation.trained import beyond_training
from sait_deploy.models.weights import SparseTraining
from sait_deploy.tokens import Score
from sait_deploy.training.options import DensityRange, MassRange, TrainOptions
from sait_deploy.training.steps import point_in_step
from tests.evaluation.blotches import noise, small
from tests.tiny import HALF

PATCHES = 144
DENSITIES = SparseTraining(Score.MEAN, 1, 0.15, 0.75)
MASSES = dataclasses.replace(DENSITIES, low_mass=0.4, high_mass=0.97)
NEVER = "the weights never drew a mass in training, only densities 0.15 to 0.75"


def said(training: SparseTraining | None, *asked: str | PointRequest) -> list[str]:
    """What is said of densities, which are text, and points."""
    identities = [
        of_point(one, PATCHES) if isinstance(one, PointRequest) else of_density(Decimal(one), PATCHES) for one in asked
    ]
    return beyond_training(training, identities, PATCHES)


@pytest.mark.parametrize(
    ("training", "asked", "wanted"),
    [
        (None, ["0.01", mass_point(0.1)], []),
        (DENSITIES, ["0.15", "0.5", "0.75"], []),
        (DENSITIES, ["0.1"], ["density 0.1 is below density 0.15, the lowest that the weights were trained at"]),
        (
            DENSITIES,
            ["0.1", "0.5", PointRequest("tiny", 1.0, 2, 2)],
            ["density 0.1, tiny are below density 0.15, the lowest that the weights were trained at"],
        ),
        (DENSITIES, ["0.8"], ["density 0.8 is above density 0.75, the highest that the weights were trained at"]),
        (DENSITIES, ["1", PointRequest("all", 1.0)], []),  # dense steps drop nothing either
        (DENSITIES, [mass_point(0.9), mass_point(0.8)], [NEVER]),
        (MASSES, [mass_point(0.4), mass_point(0.97)], []),
        (
            MASSES,
            [mass_point(0.3), mass_point(0.98)],
            [
                "mass 0.3 is below mass 0.4, the lowest that the weights were trained at",
                "mass 0.98 is above mass 0.97, the highest that the weights were trained at",
            ],
        ),
    ],
)
def test_what_lies_outside_is_named(
    training: SparseTraining | None, asked: list[str | PointRequest], wanted: list[str]
) -> None:
    assert said(training, *asked) == wanted


@given(
    st.lists(st.integers(1, 1000), min_size=2, max_size=2, unique=True).map(sorted),
    st.lists(st.integers(1, 999), min_size=2, max_size=2, unique=True).map(sorted),
    st.integers(0, 2**20),
    st.integers(1, 1000),
)
def test_what_training_draws_lies_inside(densities: list[int], masses: list[int], seed: int, patch_tokens: int) -> None:
    density, mass = (DensityRange(*(n / 1000 for n in densities)), MassRange(*(n / 1000 for n in masses)))
    options = TrainOptions(output=Path("training"), densities=density, masses=mass, seed=seed)
    training = SparseTraining(Score.MEAN, 1, density.low, density.high, mass.low, mass.high)
    drawn = [point_in_step(0, step, 8, patch_tokens, options) for step in range(8)]
    requests = [PointRequest.of("drawn", point) for point in drawn if point is not None]
    assert len(requests) == 4
    assert beyond_training(training, [of_point(request, patch_tokens) for request in requests], patch_tokens) == []


def test_an_evaluation_notes_what_was_asked_for_and_nothing_else() -> None:
    """Beside one density: rivals and what masses are compared with are not what anyone asked for."""
    training = SparseTraining(Score.CLS, 2, 0.4, 0.5, 0.2, 0.6)
    loaded = dataclasses.replace(small(), training=training)
    options = EvaluateOptions(densities=(HALF,), points=(mass_point(0.6),), controls=(Decimal("0.1"),))
    found = evaluate(loaded, noise(4), options)
    assert (found.score, found.prune_at) == ("cls", 2), "as trained where nothing else is asked for"
    assert len(found.rows) > 5
    assert [note.text for note in found.notes if "trained at" in note.text] == [
        "density 0.1 is below density 0.4, the lowest that the weights were trained at"
    ]
    other = evaluate(
        loaded, noise(4), EvaluateOptions(densities=(HALF,), lower_resolutions=(), score=Score.MEAN, prune_at=0)
    )
    assert (other.score, other.prune_at) == ("mean", 0)
    unknown = evaluate(dataclasses.replace(loaded, training=None), noise(4), options)
    assert (unknown.score, unknown.prune_at) == ("mean", 0)
    assert not [note for note in unknown.notes if "trained" in note.text]


@pytest.mark.parametrize(("training", "wanted"), [(DENSITIES, [NEVER]), (MASSES, [])])
def test_a_threshold_alone_lets_images_differ_and_is_at_no_mass(training: SparseTraining, wanted: list[str]) -> None:
    assert beyond_training(training, [of_point(PointRequest("alone", 1.0), PATCHES, 1.5)], PATCHES) == wanted
