"""Adaptive artifacts: each image is answered at its own operating point, whatever the runtime and its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime import Runner, load
from tests.exported import CLASSES, POINTS, TinyExport
from tests.runtime.cases import CHOICES, COUNT, ONE_THREAD, PATCHES, SHAPE
from tests.tiny import random_batch

IMAGES = random_batch((COUNT, *SHAPE), seed=5)


def close(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    return np.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def limits(values: dict[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The point of every image that a choice asks for, by the points as they were asked for at export."""
    request = next((request for request in POINTS if request.name == values.get("point")), POINTS[0])
    mass = np.broadcast_to(np.float32(values.get("mass", request.mass)), COUNT)
    least = np.broadcast_to(values.get("min_keep", request.min_keep), COUNT)
    most = np.broadcast_to(values.get("max_keep", request.max_keep or PATCHES), COUNT)
    return mass, np.stack([least, most], axis=1).astype(np.int32)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_each_image_keeps_what_its_point_says(adaptive_runner: Runner, choice: dict[str, Any]) -> None:
    selection, output = adaptive_runner.select(IMAGES, **choice), adaptive_runner.run(IMAGES, **choice)
    keep, counts = mass_token_select(selection.importance, *limits(choice), 1)
    np.testing.assert_array_equal(selection.keep, keep)
    np.testing.assert_array_equal(output.kept, counts - 1)
    assert output.kept.dtype == np.int32 and output.features is None
    assert output.logits.shape == (COUNT, CLASSES) and output.logits.dtype == np.float32
    assert close(selection.logits, output.logits)
    assert selection.importance.shape == (COUNT, PATCHES) and selection.keep.dtype == np.int32
    np.testing.assert_allclose(selection.importance.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_runtimes_give_the_same_answers(adaptive_runners: list[Runner], choice: dict[str, Any]) -> None:
    first, *others = adaptive_runners
    wanted, logits = first.select(IMAGES, **choice), first.run(IMAGES, **choice).logits
    for other in others:
        found = other.select(IMAGES, **choice)
        np.testing.assert_allclose(found.importance, wanted.importance, rtol=1e-4, atol=1e-6)
        same = (found.keep == wanted.keep).all(axis=1)
        assert same.mean() > 0.8
        assert close(other.run(IMAGES, **choice).logits[same], logits[same])


def test_a_named_point_is_its_numbers_and_the_first_is_the_default(adaptive_runner: Runner) -> None:
    for request in POINTS:
        named = adaptive_runner.run(IMAGES, point=request.name)
        most = request.max_keep or PATCHES
        numbers = adaptive_runner.run(IMAGES, mass=request.mass, min_keep=request.min_keep, max_keep=most)
        np.testing.assert_array_equal(numbers.logits, named.logits)
    default = adaptive_runner.run(IMAGES)
    for name in ("default", POINTS[0].name):
        np.testing.assert_array_equal(adaptive_runner.run(IMAGES, point=name).logits, default.logits)
    assert not np.array_equal(adaptive_runner.run(IMAGES, point="fast").kept, default.kept)


def test_one_value_is_that_value_for_every_image(adaptive_runner: Runner) -> None:
    once = adaptive_runner.run(IMAGES, mass=0.5, min_keep=4, max_keep=20)
    each = adaptive_runner.run(IMAGES, mass=[0.5] * COUNT, min_keep=np.full(COUNT, 4), max_keep=(20,) * COUNT)
    np.testing.assert_array_equal(once.logits, each.logits)
    np.testing.assert_array_equal(once.kept, each.kept)


POINTS_OF_NEIGHBOURS: list[dict[str, Any]] = [
    {"mass": [0.5, 0.0, 0.0, 0.0, 0.0, 0.0]},
    {"mass": [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]},
    {"mass": [0.5, 0.9, 0.1, 0.6, 0.3, 1.0], "max_keep": [PATCHES, 1, 2, 3, 30, 5]},
]


@pytest.mark.parametrize("mass", [1.0, 1.5, 1e30])
def test_mass_1_is_the_dense_model(
    adaptive_runner: Runner, tiny: TinyExport, tiny_adaptive: Artifact, mass: float
) -> None:
    dense = load(tiny.dense, adaptive_runner.runtime, ONE_THREAD).run(IMAGES)
    found = adaptive_runner.run(IMAGES, mass=mass)
    assert tiny_adaptive.manifest.baseline == tiny.dense.manifest.id
    assert found.kept.tolist() == [PATCHES] * COUNT
    assert close(found.logits, dense.logits)


def test_a_density_is_a_point_too(adaptive_runner: Runner, tiny: TinyExport) -> None:
    half = load(tiny.half, adaptive_runner.runtime, ONE_THREAD)
    found = adaptive_runner.run(IMAGES, mass=1, min_keep=18, max_keep=18)
    np.testing.assert_array_equal(found.kept, half.run(IMAGES).kept)
    assert close(found.logits, half.run(IMAGES).logits)


def test_more_mass_keeps_more_tokens(adaptive_runner: Runner) -> None:
    kept = np.stack([adaptive_runner.run(IMAGES, mass=mass).kept for mass in (0, 0.2, 0.5, 0.8, 0.95, 1)])
    assert (np.diff(kept, axis=0) >= 0).all()
    assert kept[0].tolist() == [1] * COUNT and kept[-1].tolist() == [PATCHES] * COUNT
    assert len(set(kept[2])) > 1, "every image should keep its own number"


POINT = st.tuples(st.floats(0, 1.25, width=32), st.integers(1, PATCHES), st.integers(1, PATCHES))


@given(st.lists(POINT, min_size=1, max_size=COUNT))
@settings(max_examples=40, deadline=None)
def test_any_points_side_by_side(adaptive_runners: list[Runner], points: list[tuple[float, int, int]]) -> None:
    runner, batch = adaptive_runners[0], len(points)
    masses, least, most = ([*column] for column in zip(*((m, *sorted(pair)) for m, *pair in points), strict=True))
    selection = runner.select(IMAGES[:batch], mass=masses, min_keep=least, max_keep=most)
    keep, _ = mass_token_select(
        selection.importance, np.array(masses, np.float32), np.array([least, most], np.int32).T, 1
    )
    np.testing.assert_array_equal(selection.keep, keep)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_predictions_are_made_at_the_point_asked_for(adaptive_runner: Runner, choice: dict[str, Any]) -> None:
    pixels = list(np.random.default_rng(0).integers(0, 256, (COUNT, 50, 70, 3), dtype=np.uint8))
    found = adaptive_runner.predict(pixels, 1, PointChoice(**choice))
    expected = adaptive_runner.run(adaptive_runner.preprocess(pixels), **choice)
    assert [prediction.kept for prediction in found] == expected.kept.tolist()
    assert [prediction.labels for prediction in found] == [(str(row.argmax()),) for row in expected.logits]


def test_bound_runs_take_a_point_on_every_runtime(adaptive_runner: Runner) -> None:
    for choice in CHOICES:
        compute = adaptive_runner.bind(IMAGES, PointChoice(**choice))
        assert [compute() for _ in range(2)] == [None] * 2
