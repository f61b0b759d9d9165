"""A command from outside."""

from __future__ import annotations

import click

from sait_deploy.cli._options import debug_option


@click.command()
@click.argument("name")
@debug_option
def command(name: str) -> None:
    """Greet someone."""
    click.echo(f"Hello, {name}.")
