"""How reports write figures."""

from __future__ import annotations

from typing import Final

NOTHING: Final = "–"
"""What stands in place of a figure that there is not."""


def near_chance(percent: float, images: int, classes: int) -> str | None:
    """Says that a dense model is hardly better than chance; None where it is.

    That is below twice the share of one class, or of three classes and fewer below the middle between it and all.

    Args:
        percent: of labelled images that it is right on.
        images: how many those are.
        classes: of the model.
    """
    chance = 100 / classes
    if percent >= min(2 * chance, (100 + chance) / 2):
        return None
    return (
        f"dense itself is {percent:.1f} % right on {images} images, and chance is {chance:.2g} %: check preprocessing, "
        "labels and class folders before all else"
    )


def digits(value: float, significant: int = 3) -> str:
    """Writes a number with that many significant digits and never an exponent: 0.150, 4.61, 1237."""
    exponent = int(f"{value:.{significant - 1}e}".partition("e")[2])
    return f"{value:.{max(0, significant - 1 - exponent)}f}"


def signed(value: float, decimals: int) -> str:
    """Writes a difference with its sign, which is ± where it rounds to zero."""
    rounded = round(value, decimals)
    sign = "±" if rounded == 0 else "+" if rounded > 0 else "−"
    return f"{sign}{abs(rounded):.{decimals}f}"


def kept_tokens(mean: float, p95: float, most: int) -> str:
    """Writes mean, p95 and the most kept patch tokens, or one number where every image keeps as many."""
    if mean == p95 == most:
        return str(most)
    return f"{mean:.1f} / {p95:.0f} / {most}"
