"""Options that several commands take, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.registry import ONNXRUNTIME, RUNTIMES

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
        default=ONNXRUNTIME,
        show_default=True,
        metavar="NAME",
        help=f"One of {', '.join(RUNTIMES)}.",
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


def model_options(function: Decorated) -> Decorated:
    """Adds what names a model: ``--model``, ``--weights``, ``--pretrained``, ``--random-weights`` and ``--imgsz``."""
    options = (
        click.option("--model", default=None, metavar="NAME", help="A timm name.  [default: the demonstration model]"),
        click.option(
            "--weights", type=click.Path(path_type=Path), help="Weights file: safetensors or a torch checkpoint."
        ),
        click.option("--pretrained", is_flag=True, help="timm's own weights, downloaded."),
        click.option("--random-weights", is_flag=True, help="Random weights: for measuring speed only."),
        click.option(
            "--imgsz",
            type=click.IntRange(min=1),
            metavar="N",
            help="Side of the input in pixels.  [default: the model's]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def weights_source(weights: Path | None, pretrained: bool, random_weights: bool) -> WeightsSource:
    """Returns which of the options of ``model_options`` names the weights, the demonstration's where none does.

    Raises:
        InvalidArgument: more than one does.
    """
    named = [
        (weights is not None, "--weights", WeightsSource.FILE),
        (pretrained, "--pretrained", WeightsSource.PRETRAINED),
        (random_weights, "--random-weights", WeightsSource.RANDOM),
    ]
    given = [(flag, source) for is_given, flag, source in named if is_given]
    if len(given) > 1:
        raise InvalidArgument(f"{' and '.join(flag for flag, _ in given)} name different weights", "give one of them")
    return given[0][1] if given else WeightsSource.DEMO
