"""How a stage reports what it is doing, and how much of that is done."""

from __future__ import annotations

import logging
from typing import Final, Protocol

_LOGGER: Final = logging.getLogger("sait_deploy")


class Progress(Protocol):
    """What a stage calls when a step begins, and again while the step goes on.

    Args:
        step: what is being done, in words; the same words while the step goes on.
        share: how much of the step is done, from 0 to 1; None where that is unknown.
    """

    def __call__(self, step: str, share: float | None = None, /) -> None:
        """Reports a step."""


def no_progress(step: str, share: float | None = None, /) -> None:
    """Reports nothing."""


def logged(step: str, share: float | None = None, /) -> None:
    """Logs a step to the logger ``sait_deploy``: at INFO as it begins, at DEBUG while it goes on."""
    if share:
        _LOGGER.debug("%s: %.0f%%", step, 100 * share)
    else:
        _LOGGER.info("%s", step)


def named(name: str, progress: Progress) -> Progress:
    """Returns a progress that puts a name before each step: "tensorrt: batch 8"."""

    def report(step: str, share: float | None = None, /) -> None:
        progress(f"{name}: {step}", share)

    return report
