"""How much a command says beside its results: ``-q`` and ``-v``."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Final

import click

from sait_deploy.errors import InvalidArgument


class Verbosity(StrEnum):
    """How much is said on stderr."""

    QUIET = "quiet"
    """Warnings and errors alone."""

    NORMAL = "normal"
    """What is being done, too, and the next command to type."""

    VERBOSE = "verbose"
    """All that the logger ``sait_deploy`` gets, with the time."""


_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def verbosity() -> Verbosity:
    """Returns what the command that runs was told."""
    context = click.get_current_context(silent=True)
    said: Verbosity = Verbosity.NORMAL if context is None else context.meta.get(__name__, Verbosity.NORMAL)
    return said


def verbosity_options() -> list[click.Option]:
    """Returns ``-q`` and ``-v``, which every command has."""
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=lambda context, _, given: _say(context, Verbosity.QUIET) if given else None,
            help="Say nothing but results, warnings and errors.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=lambda context, _, given: _say(context, Verbosity.VERBOSE) if given else None,
            help="Log every step, with the time.",
        ),
    ]


def _say(context: click.Context, wanted: Verbosity) -> None:
    if context.meta.setdefault(__name__, wanted) is not wanted:
        raise InvalidArgument("--quiet and --verbose exclude each other", "give one of them")
    if wanted is Verbosity.VERBOSE:
        logger, handler = logging.getLogger("sait_deploy"), logging.StreamHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        context.call_on_close(lambda level=logger.level: logger.setLevel(level))
        context.call_on_close(lambda: logger.removeHandler(handler))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
