"""The command line: parse, one call, render. A command's module is imported when that command runs."""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import signal
import sys
import warnings
from dataclasses import dataclass
from typing import Final, NoReturn

import click
from click.core import ParameterSource

from sait_deploy import __version__
from sait_deploy.cli._lines import say
from sait_deploy.errors import MissingDependency, SaitError, StorageError, first_line
from sait_deploy.reports.escape import plain
from sait_deploy.system import command_line, interrupts


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A command: what it does, in a line, and the module whose ``command`` is run."""

    summary: str
    module: str


COMMANDS: Final[dict[str, CommandEntry]] = {
    "train": CommandEntry(
        "Train a model dense and sparse, so that one set of weights serves every density.", "sait_deploy.cli.train"
    ),
    "export": CommandEntry(
        "Export a vision transformer at token densities, with its dense baseline.", "sait_deploy.cli.export"
    ),
    "quantize": CommandEntry("Turn artifacts into int8 ones that answer as they do.", "sait_deploy.cli.quantize"),
    "build-engine": CommandEntry("Turn artifacts into TensorRT engines.", "sait_deploy.cli.build_engine"),
    "bench": CommandEntry("Measure artifacts against their dense baseline.", "sait_deploy.cli.bench"),
    "evaluate": CommandEntry(
        "Measure accuracy over operating points, against controls and rivals.", "sait_deploy.cli.evaluate"
    ),
    "tune": CommandEntry("Find the cheapest operating point that keeps a limit.", "sait_deploy.cli.tune"),
    "recommend": CommandEntry("Choose what to deploy: point, runtime and precision.", "sait_deploy.cli.recommend"),
    "predict": CommandEntry("Classify images, and show which tokens were kept.", "sait_deploy.cli.predict"),
    "serve": CommandEntry("Answer requests over HTTP and gRPC, in batches made of tokens.", "sait_deploy.cli.serve"),
    "batch": CommandEntry("Label or embed a folder or Parquet of images into Parquet.", "sait_deploy.cli.batch"),
    "triton-repository": CommandEntry(
        "Make an artifact a model of Triton Inference Server.", "sait_deploy.cli.triton_repository"
    ),
    "inspect": CommandEntry(
        "Show what an artifact is; --check compares it with torch again.", "sait_deploy.cli.inspect"
    ),
    "doctor": CommandEntry("Try what works on this machine.", "sait_deploy.cli.doctor"),
    "models": CommandEntry("List the models that can be exported.", "sait_deploy.cli.models"),
}
"""Name to command, in the order in which they are used. To add one, write its module and its entry."""

EXTRAS: Final = {
    "torch": "export,cpu",
    "timm": "export,cpu",
    "onnxscript": "export,cpu",
    "onnx_ir": "export,cpu",
    "onnx_graphsurgeon": "export,cpu",
    "safetensors": "export,cpu",
    "sklearn": "train",
    "skimage": "train",
    "accelerate": "train",
}
"""Packages of the commands, and the extras that install what a command with such a package needs.

A runtime's package stands in its own entry, ``sait_deploy.runtime.registry``.
"""

_UNEXPECTED: Final = 70


class _LazyGroup(click.Group):
    """Knows every command's name and summary without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name].module).command
        interrupts.unwind()
        from sait_deploy.system.scratch import temporary_place

        with contextlib.suppress(OSError):  # of a machine without one, which few commands need
            temporary_place()  # before packages ask Python, which tries places by writing there
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            ctx.fail(f"No such command {args[0]!r}. {meant}Commands are: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="sait-deploy")
def main() -> None:
    """Deploy vision transformers that prune tokens adaptively.

    Every option can also stand in a file (--config) or in the environment: SAIT_DEPLOY_EXPORT_OUTPUT is --output of
    export.
    """


def run(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits: each kind of error has its own code (``sait_deploy.errors``)."""
    with interrupts.restored():
        _run(arguments)


def _run(arguments: list[str] | None) -> NoReturn:
    if not sys.warnoptions:
        # Pillow warns of large and of slightly damaged images, with a line of its own source.
        warnings.filterwarnings("ignore", module=r"PIL\.")
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # in ASCII a question mark in place of × rather than no table at all
    command_line.remember(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(main.main(args=arguments, prog_name="sait-deploy", standalone_mode=False))
    except click.ClickException as error:
        for line in _misused(error):
            say(line)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo(interrupts.INTERRUPTED, err=True)
        ended = error if isinstance(error, interrupts.Ended) else error.__cause__
        sys.exit(ended.exit_code if isinstance(ended, interrupts.Ended) else 128 + signal.SIGINT)
    except Exception as error:
        if debug:
            import traceback

            click.echo("\n".join(map(plain, traceback.format_exc().split("\n"))), err=True)
        code, lines = _explained(error)
        for line in lines:
            say(line)
        sys.exit(code)


def _misused(error: click.ClickException) -> list[str]:
    """Returns what to print of wrong arguments; where there are none at all, click's error is the help."""
    message = error.format_message()
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # there is none before click 8.2
        return message.split("\n")
    context = error.ctx if isinstance(error, click.UsageError) else None
    words, command = " ".join(message.split()), "sait-deploy" if context is None else context.command_path
    return [f"error: {words[:1].lower()}{words[1:].rstrip('.')}{_origin(error)}", f"hint: see {command} --help"]


def _origin(error: click.ClickException) -> str:
    """Says where a wrong value comes from, if not from the command line."""
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    if parameter is None or context is None:
        return ""
    source = context.get_parameter_source(parameter.name)
    if source is ParameterSource.ENVIRONMENT:
        return f" (from {parameter.envvar})"
    return " (from --config)" if source is ParameterSource.DEFAULT_MAP else ""


def _explained(error: Exception) -> tuple[int, list[str]]:
    """Returns the exit code of an error, and what to print of it."""
    known = _known(error)
    if known is not None:
        hint = [f"hint: {known.hint}"] if known.hint else []
        return known.exit_code, [f"error: {known.message}", *hint]
    kind, first = type(error).__name__, first_line(error)
    return _UNEXPECTED, [
        f"error: unexpected {kind}" + (f": {first}" if first != kind else ""),
        "hint: --debug shows the traceback; please report it",
    ]


def _known(error: Exception) -> SaitError | None:
    if isinstance(error, SaitError):
        return error
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        return MissingDependency(package, "this command", EXTRAS[package]) if package in EXTRAS else None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError("no space left to write to", "free some")
    return None
