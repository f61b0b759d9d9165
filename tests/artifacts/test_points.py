"""Operating points as they are asked for at export: read, or refused with the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.artifacts.points import PointRequest, mass_point, parse_mass, parse_point
from sait_deploy.errors import InvalidArgument
from sait_deploy.tokens import OperatingPoint

PATCHES: Final = 16
MASSES: Final = st.floats(0, 2)


@pytest.mark.parametrize("name", ["a", "fast", "A1", "mass0.95", "very-fast_2.0", "default"])
def test_names_that_points_may_have(name: str) -> None:
    assert PointRequest(name, 0.5).name == name


@pytest.mark.parametrize("name", ["", "1a", "_a", "-a", ".a", "a b", "mass 1", "a=b", "a,b", "a/b", "ä", "a\n", " a"])
def test_names_that_points_may_not_have(name: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot name a point") as caught:
        PointRequest(name, 0.5)
    assert repr(name) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("mass", [math.nan, math.inf, -math.inf, -1.0, -1e-300])
@pytest.mark.parametrize("make", [mass_point, lambda mass: PointRequest("a", mass)])
def test_masses_that_points_may_not_have(make: Callable[[float], PointRequest], mass: float) -> None:
    with pytest.raises(InvalidArgument, match="from 0 on") as caught:
        make(mass)
    assert f"mass {mass:g} is" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(("least", "most"), [(0, None), (-1, 4), (3, 2), (1, 0), (0, 0), (-2, -1)])
def test_limits_that_points_may_not_have(least: int, most: int | None) -> None:
    with pytest.raises(InvalidArgument, match="which cannot be") as caught:
        PointRequest("a", 0.5, least, most)
    told = "all" if most is None else most
    assert f"'a' keeps {least} to {told} patch tokens" in caught.value.message


@given(MASSES, st.integers(1, PATCHES), st.none() | st.integers(1, PATCHES), st.integers(1, 2 * PATCHES))
def test_a_request_becomes_the_point_of_a_model_it_fits(mass: float, least: int, most: int | None, n: int) -> None:
    if most is not None and most < least:
        return
    request = PointRequest("a", mass, least, most)
    if max(least, most or 0) <= n:
        assert request.resolve(n) == OperatingPoint(mass, least, n if most is None else most)
        return
    with pytest.raises(InvalidArgument, match=f"'a' keeps .*; the model has {n}") as caught:
        request.resolve(n)
    assert caught.value.hint == f"give at most {n}"


@pytest.mark.parametrize(
    ("mass", "name"),
    [(0.95, "mass0.95"), (1.0, "mass1"), (0.0, "mass0"), (0.1234567, "mass0.1234567"), (1e20, "mass1e20")],
)
def test_a_point_of_a_mass_is_named_after_it(mass: float, name: str) -> None:
    assert mass_point(mass) == PointRequest(name, mass, 1, None)
    assert mass_point(mass, 2, 9) == PointRequest(name, mass, 2, 9)


@given(st.floats(0, allow_nan=False, allow_infinity=False))
def test_every_mass_names_a_point(mass: float) -> None:
    assert mass_point(mass).mass == mass


@given(st.floats(0, allow_nan=False, allow_infinity=False))
def test_masses_are_read_as_they_are_written(mass: float) -> None:
    assert parse_mass(repr(mass)) == mass


@pytest.mark.parametrize("text", ["", " ", "half", "0,5", "50%", "1/2", "--1", "0.5f", "0x1"])
def test_text_that_is_no_mass(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a number") as caught:
        parse_mass(text)
    assert f"mass {text!r}" in caught.value.message
    assert "0.95" in caught.value.hint


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity", "-0.1", "-1", "1e999"])
def test_numbers_that_are_no_mass(text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"mass {float(text):g} is no number from 0 on"):
        parse_mass(text)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("fast=0.8,8,100", PointRequest("fast", 0.8, 8, 100)),
        ("fast=0.8,8", PointRequest("fast", 0.8, 8, 50)),
        ("fast=0.8", PointRequest("fast", 0.8, 3, 50)),
        ("all=1", PointRequest("all", 1.0, 3, 50)),
        (" fast = 0.8 , 8 , 100 ", PointRequest("fast", 0.8, 8, 100)),
    ],
)
def test_points_are_read_with_the_limits_given_where_they_name_none(text: str, point: PointRequest) -> None:
    assert parse_point(text, 3, 50) == point


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"'' is not NAME=mass\[,min\[,max\]\]"),
        ("fast", "is not NAME=mass"),
        ("0.8", "is not NAME=mass"),
        ("fast:0.8", "is not NAME=mass"),
        ("fast=0.8,1,2,3", "is not NAME=mass"),
        ("=0.8", "'' cannot name a point"),
        ("1st=0.8", "'1st' cannot name a point"),
        ("a b=0.8", "'a b' cannot name a point"),
        ("fast=", "mass '' is not a number"),
        ("fast=x", "mass 'x' is not a number"),
        ("fast=a=b", "mass 'a=b' is not a number"),
        ("fast=nan", "mass nan is no number from 0 on"),
        ("fast=-1", "mass -1 is no number from 0 on"),
        ("fast=0.8,", "'fast=0.8,' has a limit that is no whole number"),
        ("fast=0.8,,9", "no whole number"),
        ("fast=0.8,1.5", "no whole number"),
        ("fast=0.8,1,all", "no whole number"),
        ("fast=0.8,0", "'fast' keeps 0 to all"),
        ("fast=0.8,9,8", "'fast' keeps 9 to 8"),
    ],
)
def test_text_that_is_no_point(text: str, match: str) -> None:
    with pytest.raises(InvalidArgument, match=match) as caught:
        parse_point(text)
    assert caught.value.hint


PARTS: Final = st.lists(
    st.sampled_from(["a", "=", ",", "0.5", "1", "-", "9", " ", "e", "nan", "_", "\n", "9" * 30]), max_size=9
)


@given(st.text(max_size=12) | PARTS.map("".join))
def test_any_text_is_a_point_or_refused(text: str) -> None:
    try:
        point = parse_point(text)
    except InvalidArgument:
        return
    assert text.count("=") == 1
    assert 1 <= point.min_keep <= (point.max_keep or point.min_keep) and 0 <= point.mass < math.inf
