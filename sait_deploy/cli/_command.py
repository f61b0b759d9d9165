"""What every command has: options in sections, an example, --config, the environment, and old names of options."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from sait_deploy.cli._render import warn
from sait_deploy.cli._verbosity import verbosity_options
from sait_deploy.engine.trust import DOWNLOAD_FLAG, HOST_CODE_FLAG, TRUST_FLAG
from sait_deploy.errors import InvalidArgument
from sait_deploy.system.reading import read_text

CONSENT_FLAGS: Final = (DOWNLOAD_FLAG, HOST_CODE_FLAG, TRUST_FLAG)
"""What a user says on the command line alone: neither the environment nor a file can trust what others made."""

ENVIRONMENT: Final = "SAIT_DEPLOY"
"""How the environment variables of options begin: ``SAIT_DEPLOY_EXPORT_OUTPUT`` is ``export --output``."""

_REST: Final = "Options"

_SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    _REST: (),
    "Model": (
        *("--model", "--weights", "--pretrained", "--random-weights", "--imgsz", "--global-pool", "--in-chans"),
        *("--mean", "--std", "--crop-pct", "--interpolation", "--task", "--head", "--labels"),
    ),
    "Tokens": (
        *("--density", "--mass", "--point", "--points", "--kept", "--min-keep", "--max-keep", "--dense"),
        *("--score", "--prune-at", "--density-range", "--mass-range"),
    ),
    "Images": ("--images", "--check-images", "--class-map", "--class-embeddings", "--image-column", "--limit"),
    "Where it runs": (
        *("--runtime", "--precision", "--device", "--threads", "--batch", "--token-budget", "--replicas", "--address"),
    ),
    "Results": ("--artifact", "--workspace", "--output", "--overwrite", "--visualize", "--top", "--json"),
    "Trust": CONSENT_FLAGS,
    "Common": ("--config", "--quiet", "--verbose", "--debug", "--help"),
}
"""The sections of a command's help, in their order; those that no section names are the command's own."""

_SECTION_OF: Final = {name: section for section, names in _SECTIONS.items() for name in names}


class Command(click.Command):
    """A command of this package.

    Args:
        example: a call of it, shown where its help ends.
        renamed: old names of options and their new ones, or none where what followed is an argument; the old ones
            are accepted with a warning, and are in no help.
    """

    def __init__(
        self, *arguments: Any, example: str = "", renamed: Mapping[str, str] | None = None, **attributes: Any
    ) -> None:
        super().__init__(*arguments, **attributes)
        self.example, self.renamed = example, dict(renamed or {})
        self.params += [
            click.Option(
                ["--config"],
                type=click.Path(path_type=Path),
                is_eager=True,
                expose_value=False,
                callback=_read_config,
                metavar="FILE",
                help="TOML file of options by their names here; the command line and the environment replace them.",
            ),
            *verbosity_options(),
            click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the arguments, old names of options among them, and what the environment says of the others."""
        for option in self.params:
            name = _name(option)
            if name.startswith("--") and name not in (*CONSENT_FLAGS, "--debug"):
                option.envvar = f"{ENVIRONMENT}_{ctx.info_name}_{name[2:]}".replace("-", "_").upper()
        try:
            return super().parse_args(ctx, self._with_new_names(args))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click leaves it out of an option without a value
            raise

    def _with_new_names(self, arguments: list[str]) -> list[str]:
        found: list[str] = []
        for number, argument in enumerate(arguments):
            if argument == "--":
                return found + arguments[number:]
            name, equals, value = argument.partition("=")
            new = self.renamed.get(name)
            if new is None:
                found.append(argument)
                continue
            if not (new or value or arguments[number + 1 :]):
                raise InvalidArgument(f"{name} has no value", "write an argument without the name")
            warn(f"{name} is an old name: " + (f"write {new}" if new else "write what follows it without the name"))
            found += [part for part in (f"{new}{equals}{value}" if new else value,) if part]
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options in their sections."""
        sections: dict[str, list[tuple[str, str]]] = {section: [] for section in _SECTIONS}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                sections[_SECTION_OF.get(_name(option), _REST)].append(record)
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the example, whole."""
        if self.example:
            with formatter.section("Example"):
                formatter.write(f"{'':>{formatter.current_indent}}{self.example}\n")


def _name(option: click.Parameter) -> str:
    """Returns the longest name of an option, which is that in its help."""
    return max(option.opts, key=len)


def _read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Makes a file's values the defaults of the options."""
    if path is None:
        return
    try:
        values = tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:  # TOML's errors are ValueErrors
        raise InvalidArgument(f"config {path} cannot be read: {error}", "give a TOML file of options") from None
    options = {_name(option)[2:]: option for option in context.command.params if isinstance(option, click.Option)}
    if isinstance(context.command, Command):
        options |= {old[2:]: options[new[2:]] for old, new in context.command.renamed.items() if new}
    found = {}
    for name, value in values.items():
        if f"--{name}" in CONSENT_FLAGS:
            raise InvalidArgument(f"config {path} has {name!r}", "trust is said on the command line alone")
        if name in ("config", "debug"):
            raise InvalidArgument(f"config {path} has {name!r}", f"say --{name} on the command line alone")
        if name not in options:
            raise InvalidArgument(
                f"config {path} has an option {name!r}, which {context.info_name} has not",
                f"see sait-deploy {context.info_name} --help",
            )
        found[str(options[name].name)] = _as_typed(path, name, value, options[name])
    context.default_map = found


def _as_typed(path: Path, name: str, value: object, option: click.Option) -> str | list[str]:
    """Returns an option's value in a file as the texts that a command line would have."""
    parts = value if isinstance(value, list) and option.multiple else [value]
    for part in parts:
        if not isinstance(part, (str, int, float)):
            raise InvalidArgument(
                f"config {path} has {value!r} for {name!r}",
                "give a text, a number, true or false" + (", or a list of them" if option.multiple else ""),
            )
    return [str(part) for part in parts] if option.multiple else str(value)
