"""Options that several commands take, written once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from sait_deploy.cli import _completion
from sait_deploy.engine.trust import (
    DOWNLOAD_FLAG,
    HOST_CODE_FLAG,
    TRUST_FLAG,
    Consent,
    Downloads,
    EngineTrust,
    HostCode,
    grant,
)
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, ONNXRUNTIME, RUNTIMES

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


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
        shell_complete=_completion.runtimes,
        help=f"One of {', '.join(RUNTIMES)}.",
    )
    return option(function)


def listed(values: Iterable[str]) -> tuple[str, ...]:
    """Returns the parts of an option that may be repeated and may hold commas, each once."""
    return tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",")))


def precision_option(function: Decorated) -> Decorated:
    """Adds ``--precision``."""
    option = click.option(
        "--precision",
        type=click.Choice([choice.value for choice in RunPrecision]),
        help="What to run in; int8 is the artifact that quantize made.  [default: what the artifact is made for]",
    )
    return option(function)


def device_option(function: Decorated) -> Decorated:
    """Adds ``--device``."""
    option = click.option(
        "--device",
        default=DEFAULT_DEVICE,
        show_default=True,
        metavar="NAME",
        help="Where the runtime runs, by its own names: cuda:0 of torch; GPU or NPU of OpenVINO, never tried.",
    )
    return option(function)


def consent_options(function: Decorated) -> Decorated:
    """The options by which a user allows what an artifact of others does not do unasked."""

    def say(context: click.Context, option: click.Parameter, given: bool) -> None:
        said: set[str] = context.meta.setdefault(__name__, set())
        said |= {option.opts[0]} if given else set()
        grant(
            Consent(
                EngineTrust.ANY if TRUST_FLAG in said else EngineTrust.BUILT_HERE,
                HostCode.ALLOWED if HOST_CODE_FLAG in said else HostCode.REFUSED,
                Downloads.ALLOWED if DOWNLOAD_FLAG in said else Downloads.REFUSED,
            )
        )

    for name, text in (
        (DOWNLOAD_FLAG, "Fetch the weights that an artifact names from the hub, where torch needs them."),
        (HOST_CODE_FLAG, "Run code for the processor that engines built --version-compatible bring."),
        (TRUST_FLAG, "Load TensorRT engines that were built elsewhere, which is to run their code."),
    ):
        function = click.option(name, is_flag=True, expose_value=False, callback=say, help=text)(function)
    return function


def threads_option(function: Decorated) -> Decorated:
    """Adds ``--threads``."""
    option = click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads within one operator.  [default: all processors]",
    )
    return option(function)


def artifacts_argument(function: Decorated) -> Decorated:
    """Adds the artifacts that a command takes, as ``artifacts``."""
    place = click.Path(path_type=Path)
    argument = click.argument(
        "artifacts", nargs=-1, type=place, metavar="[ARTIFACT]...", shell_complete=_completion.artifacts
    )
    return argument(function)


def artifact_argument(*, required: bool) -> Callable[[Decorated], Decorated]:
    """Returns what adds the one artifact that a command takes, as ``artifact``."""
    return click.argument(
        "artifact",
        required=required,
        type=click.Path(path_type=Path),
        metavar="ARTIFACT" if required else "[ARTIFACT]",
        shell_complete=_completion.artifacts,
    )


def artifact_option(function: Decorated) -> Decorated:
    """Adds ``--artifact``."""
    option = click.option(
        "--artifact",
        type=click.Path(path_type=Path),
        metavar="DIR",
        shell_complete=_completion.artifacts,
        help="What to predict with.  [default: the last export]",
    )
    return option(function)


def top_option(function: Decorated) -> Decorated:
    """Adds ``--top``."""
    count = click.IntRange(min=1)
    return click.option("--top", type=count, default=3, show_default=True, metavar="K", help="Classes per image.")(
        function
    )


def token_budget_option(default: str) -> Callable[[Decorated], Decorated]:
    """Returns what adds ``--token-budget``, with its default in words."""
    text = f"Kept tokens of a batch at most.  [default: {default}]"
    return click.option("--token-budget", type=click.IntRange(min=1), metavar="N", help=text)


def replicas_option(text: str) -> Callable[[Decorated], Decorated]:
    """Returns what adds ``--replicas``, with a command's own help."""
    return click.option("--replicas", type=int, default=1, show_default=True, metavar="N", help=text)


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


def class_map_option(function: Decorated) -> Decorated:
    """Adds ``--class-map``."""
    option = click.option(
        "--class-map",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The class of each folder: JSON, or lines of folder and class.  [default: by the folders' names]",
    )
    return option(function)


def images_option(text: str) -> Callable[[Decorated], Decorated]:
    """Returns what adds ``--images``, with a command's own help."""
    return click.option("--images", type=click.Path(path_type=Path), metavar="DIR", help=text)


def reports_option(what: str) -> Callable[[Decorated], Decorated]:
    """Returns what adds ``--output`` as ``outputs``: files that a report is written to, in the format of their name."""
    place, text = click.Path(path_type=Path), f"Write the {what}: .json, .csv, .md, .html or .svg; repeatable."
    return click.option("-o", "--output", "outputs", multiple=True, type=place, metavar="FILE", help=text)
