"""``sait-deploy models``."""

from __future__ import annotations

import click

from sait_deploy import demo
from sait_deploy.cli._options import debug_option
from sait_deploy.cli._render import counted, live_progress, show_tables
from sait_deploy.errors import ModelError
from sait_deploy.reports.table import Table, figures, words


@click.command()
@click.argument("pattern", default="", metavar="[FILTER]")
@debug_option
def command(pattern: str) -> None:
    """List the models that can be exported, by part of the name or a wildcard such as 'deit*'."""
    rows = []
    with live_progress(keep_lines=False) as progress:
        progress("looking through timm's models")
        from sait_deploy.models.creation import model_entry, supported_names

        for name in supported_names(pattern.lower()):
            entry = model_entry(name)
            own = counted(entry.pretrained, "set") if entry.pretrained else "none"
            rows.append((name, str(entry.image_size), "shipped" if name == demo.NAME else own))
    if not rows:
        raise ModelError(f"no supported model's name has {pattern!r} in it", "list all: sait-deploy models")
    show_tables(Table.of("", [words("model"), figures("image size"), figures("pretrained weights")], rows))
