"""Operating points for a batch: every image gets its own, and what cannot be is named with its value and image."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import BatchPoint, PointChoice, named_point, resolve
from sait_deploy.artifacts.pruning_info import PointInfo
from sait_deploy.errors import InvalidArgument
from tests.exported import POINTS, draft, draft_adaptive

PATCHES: Final = 16
NO_MASSES: Final = (math.nan, math.inf, -math.inf, -1.0, -1e-300)
MASSES: Final = st.floats(0, 2, width=32)
HUGE: Final = pytest.param(10**400, id="a number that no float holds")


@functools.cache
def adaptive() -> Manifest:
    return draft_adaptive()


def with_point_called(name: str) -> Manifest:
    """Its last point has that name."""
    pruning = adaptive().pruning
    assert pruning is not None
    *others, last = pruning.points
    renamed: tuple[PointInfo, ...] = (*others, dataclasses.replace(last, name=name))
    return dataclasses.replace(adaptive(), pruning=dataclasses.replace(pruning, points=renamed))


def found(batch: int, **choice: Any) -> BatchPoint:
    point = resolve(adaptive(), batch, PointChoice(**choice))
    assert point is not None
    assert point.mass.dtype == np.float32 and point.mass.shape == (batch,)
    assert point.keep_limits.dtype == np.int32 and point.keep_limits.shape == (batch, 2)
    assert point.mass.flags.c_contiguous and point.keep_limits.flags.c_contiguous
    return point


def refusal(batch: int, **choice: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        resolve(adaptive(), batch, PointChoice(**choice))
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", [None, "default", *(request.name for request in POINTS)])
def test_every_image_gets_the_named_point_or_the_first(name: str | None) -> None:
    request = next((request for request in POINTS if request.name == name), POINTS[0])
    expected = request.resolve(PATCHES)
    point = found(3, point=name)
    np.testing.assert_array_equal(point.mass, np.full(3, expected.mass, np.float32))
    assert point.keep_limits.tolist() == [[expected.min_keep, expected.max_keep]] * 3


def test_a_point_that_is_called_default_is_the_one_meant() -> None:
    manifest = with_point_called("default")
    assert named_point(manifest, "default") == POINTS[-1].resolve(PATCHES)
    assert named_point(manifest, None) == POINTS[0].resolve(PATCHES)


@pytest.mark.parametrize("name", ["", "Fast", "mass 1", "mass0.60", "none"])
def test_an_unknown_point_is_refused_with_those_known(name: str) -> None:
    error = refusal(1, point=name)
    assert repr(name) in error.message
    assert adaptive().name in error.message
    assert error.hint == "it has mass0.6, fast, wide"


@st.composite
def choices(draw: st.DrawFn) -> tuple[int, list[float], list[int], list[int]]:
    """A batch with a mass and limits for each image."""
    batch = draw(st.integers(1, 5))
    masses = draw(st.lists(MASSES, min_size=batch, max_size=batch))
    pairs = st.tuples(st.integers(1, PATCHES), st.integers(1, PATCHES)).map(sorted)
    limits = draw(st.lists(pairs, min_size=batch, max_size=batch))
    return batch, masses, [low for low, _ in limits], [high for _, high in limits]


@given(choices())
def test_each_image_may_have_its_own(asked: tuple[int, list[float], list[int], list[int]]) -> None:
    batch, masses, least, most = asked
    for kind in (list, tuple, np.array):
        point = found(batch, mass=kind(masses), min_keep=kind(least), max_keep=kind(most))
        assert point.mass.tolist() == masses
        assert point.keep_limits.tolist() == [list(pair) for pair in zip(least, most, strict=True)]


@given(MASSES, st.integers(1, PATCHES), st.integers(2, 5))
def test_one_value_is_for_every_image(mass: float, limit: int, batch: int) -> None:
    for kind in (float, np.float64, np.array):
        point = found(batch, mass=kind(mass), min_keep=kind(limit), max_keep=kind(limit))
        assert point.mass.tolist() == [mass] * batch
        assert point.keep_limits.tolist() == [[limit, limit]] * batch


def test_what_is_given_replaces_that_part_of_the_point_alone() -> None:
    """``fast`` is mass 0.3, 2 to 8."""
    for given_parts in itertools.product((False, True), repeat=3):
        values = {"mass": [0.5, 0.75], "min_keep": [1, 3], "max_keep": [8, 9]}
        choice: dict[str, Any] = {
            name: value for (name, value), is_given in zip(values.items(), given_parts, strict=True) if is_given
        }
        point = found(2, point="fast", **choice)
        np.testing.assert_array_equal(point.mass, np.float32(choice.get("mass", [0.3, 0.3])))
        assert point.keep_limits[:, 0].tolist() == choice.get("min_keep", [2, 2])
        assert point.keep_limits[:, 1].tolist() == choice.get("max_keep", [8, 8])


@pytest.mark.parametrize("mass", NO_MASSES)
def test_a_mass_that_is_none_is_named_with_its_image(mass: float) -> None:
    starts = [
        (mass, f"mass {mass:g}"),
        ([mass, 0.5, mass], f"mass of image 0, {mass:g},"),
        ([0.5, 0.5, mass], f"mass of image 2, {mass:g},"),
    ]
    for value, start in starts:
        error = refusal(3, mass=value)
        assert error.message == f"{start} is no number from 0 on"
        assert error.hint


@pytest.mark.parametrize("name", ["min_keep", "max_keep"])
@pytest.mark.parametrize(
    ("limit", "what"),
    [
        (0, "is outside 1 to 16"),
        (-3, "is outside 1 to 16"),
        (PATCHES + 1, "is outside 1 to 16"),
        (2**31, "is outside 1 to 16"),
        (math.inf, "is outside 1 to 16"),
        (1.5, "is no whole number"),
        (math.nan, "is no whole number"),
    ],
)
def test_a_limit_that_cannot_be_is_named_with_its_image(name: str, limit: float, what: str) -> None:
    assert refusal(3, **{name: limit}).message.startswith(f"{name} {limit:g} {what}")
    for value, image in (([limit, 4, 4], 0), ([4, limit, 4], 1), ([4, limit, limit], 1)):
        message = refusal(3, **{name: value}).message
        assert message.startswith(f"{name} of image {image}, {limit:g}, {what}")


def test_limits_the_wrong_way_round_are_named_with_their_image() -> None:
    for most in (8, [8, 8, 8]):
        assert refusal(3, min_keep=[1, 9, 9], max_keep=most).message == "min_keep of image 1, 9, is above max_keep"
    assert refusal(2, point="fast", min_keep=9).message == "min_keep 9 is above max_keep"
    assert refusal(2, point="wide", max_keep=11).message == "min_keep 12 is above max_keep"
    assert refusal(2, point="wide", max_keep=[12, 11]).message.startswith("min_keep")


@pytest.mark.parametrize("name", ["mass", "min_keep", "max_keep"])
@pytest.mark.parametrize("value", [[1], [1, 1], [1] * 4, [[1, 1, 1]], [[1], [1], [1]], [], np.ones((3, 2))])
def test_values_of_another_batch_are_refused(name: str, value: Any) -> None:
    error = refusal(3, **{name: value})
    assert error.message == f"{name} has shape {list(np.shape(value))} for a batch of 3"
    assert "one per image" in error.hint


@pytest.mark.parametrize("name", ["mass", "min_keep", "max_keep"])
@pytest.mark.parametrize("value", ["much", {}, object(), [[1], [1, 2]], list("abc"), 1j, HUGE])
def test_what_is_no_number_is_refused(name: str, value: Any) -> None:
    error = refusal(3, **{name: value})
    assert name in error.message
    assert error.hint


@pytest.mark.parametrize("form", [Form.DENSE, Form.DENSITY])
@pytest.mark.parametrize(
    "choice", [{"point": "default"}, {"mass": 0.5}, {"mass": 1.0}, {"min_keep": 1}, {"max_keep": PATCHES}, {"mass": []}]
)
def test_a_fixed_point_takes_none(form: Form, choice: dict[str, Any]) -> None:
    manifest = draft()
    if form is Form.DENSE:
        manifest = dataclasses.replace(manifest, form=form, pruning=None)
    assert resolve(manifest, 2, PointChoice()) is None
    with pytest.raises(InvalidArgument, match=f"is a {form} artifact: its operating point is fixed") as caught:
        resolve(manifest, 2, PointChoice(**choice))
    assert manifest.name in caught.value.message
    assert "--mass" in caught.value.hint
