"""The colours of reports, each for light and for dark."""

from __future__ import annotations

from typing import Final, NamedTuple


class Colour(NamedTuple):
    """A colour as "#rrggbb"."""

    light: str
    dark: str


PAPER: Final = Colour("#ffffff", "#14181d")
INK: Final = Colour("#1b1f24", "#e6eaef")
MUTED: Final = Colour("#57606a", "#9aa5b1")
RULE: Final = Colour("#d8dee4", "#323a44")
AMBER: Final = Colour("#8a5a00", "#f0c060")
AMBER_PAPER: Final = Colour("#fff6e0", "#2b2414")
SHADE: Final = Colour("#f5f7f9", "#1b2027")
GOOD: Final = Colour("#24774a", "#6fcf97")
BAD: Final = Colour("#b0304f", "#f28ba0")

BASELINE: Final = Colour("#57606a", "#9aa5b1")
"""The colour of series 0, what others are compared with."""

SERIES: Final = (
    Colour("#1f6fb4", "#6db3f2"),
    Colour("#b3500a", "#f5a15a"),
    Colour("#24774a", "#6fcf97"),
    Colour("#8a3fa0", "#c99be0"),
    Colour("#b0304f", "#f28ba0"),
    Colour("#6b6300", "#d3c65a"),
)
"""Those of series 1 and up; further series begin again."""


def series_colour(series: int) -> Colour:
    """Returns the colour of a series, from 0."""
    return BASELINE if series == 0 else SERIES[(series - 1) % len(SERIES)]
