"""Options that several commands take, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sait_deploy.runtime import RuntimeName

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def debug_option(function: Decorated) -> Decorated:
    """Adds ``--debug``, which ``sait_deploy.cli.run`` looks for."""
    return click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")(function)


def json_option(function: Decorated) -> Decorated:
    """Adds ``--json`` as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def workspace_option(function: Decorated) -> Decorated:
    """Adds ``--workspace``."""
    option = click.option(
        "--workspace",
        type=click.Path(path_type=Path),
        default=Path("artifacts"),
        show_default=True,
        help="Where the last export is looked for.",
    )
    return option(function)


def runtime_option(function: Decorated) -> Decorated:
    """Adds ``--runtime``; which names there are is checked where a runtime is loaded."""
    option = click.option(
        "--runtime",
        default=RuntimeName.ONNXRUNTIME.value,
        show_default=True,
        metavar="NAME",
        help=f"One of {', '.join(RuntimeName)}.",
    )
    return option(function)


def threads_option(function: Decorated) -> Decorated:
    """Adds ``--threads``."""
    option = click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads within one operator.  [default: all processors]",
    )
    return option(function)


def point_options(function: Decorated) -> Decorated:
    """Adds ``--point``, ``--mass``, ``--min-keep`` and ``--max-keep`` of an adaptive artifact."""
    options = (
        click.option("--point", metavar="NAME", help="Named point of an adaptive artifact.  [default: its first]"),
        click.option("--mass", metavar="M", help="Share of importance to keep, in place of the point's."),
        click.option("--min-keep", type=int, metavar="N", help="Patch tokens kept at least, likewise."),
        click.option("--max-keep", type=int, metavar="N", help="Patch tokens kept at most, likewise."),
    )
    for option in reversed(options):
        function = option(function)
    return function
