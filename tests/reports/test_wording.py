"""How figures are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.reports.wording import digits, kept_tokens, near_chance, signed


@given(st.floats(-100, 100), st.integers(1, 2))
def test_a_difference_has_the_sign_of_what_is_written(value: float, decimals: int) -> None:
    text = signed(value, decimals)
    number = float(text[1:])
    assert number == abs(round(value, decimals))
    assert text[0] == ("±" if number == 0 else "+" if value > 0 else "−")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0.15, "0.150"), (4.606, "4.61"), (17.58, "17.6"), (1237.4, "1237"), (9.999, "10.0"), (0, "0.00")],
)
def test_three_digits_without_an_exponent(value: float, wanted: str) -> None:
    assert digits(value) == wanted


@given(st.floats(1e-6, 1e9))
def test_digits_stay_within_half_a_percent(value: float) -> None:
    assert float(digits(value)) == pytest.approx(value, rel=0.0051)
    assert "e" not in digits(value)


def test_kept_tokens_are_three_figures_where_images_differ_and_one_where_not() -> None:
    assert kept_tokens(98.44, 121.0, 153) == "98.4 / 121 / 153"
    assert kept_tokens(87.0, 87.0, 87) == "87"
    assert kept_tokens(86.9, 87.0, 87) == "86.9 / 87 / 87"


@pytest.mark.parametrize(
    ("percent", "classes", "said"),
    [
        (33.3, 3, True),
        (66.6, 3, True),
        (70.0, 3, False),
        (74.0, 2, True),
        (80.0, 2, False),
        (0.0, 1000, True),
        (0.3, 1000, False),
    ],
)
def test_near_chance_is_below_twice_the_share_of_a_class(percent: float, classes: int, said: bool) -> None:
    text = near_chance(percent, 60, classes)
    assert (text is not None) is said
    assert text is None or f"{percent:.1f} % right on 60 images" in text
