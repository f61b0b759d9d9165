"""How figures are written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.reports.wording import signed


@given(st.floats(-100, 100), st.integers(1, 2))
def test_a_difference_has_the_sign_of_what_is_written(value: float, decimals: int) -> None:
    text = signed(value, decimals)
    number = float(text[1:])
    assert number == abs(round(value, decimals))
    assert text[0] == ("±" if number == 0 else "+" if value > 0 else "−")
