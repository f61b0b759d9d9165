"""A command from outside."""

from __future__ import annotations

import click

from sait_deploy.cli._command import Command


@click.command(cls=Command, example="sait-deploy greet-someone Ada")
@click.argument("name")
def command(name: str) -> None:
    """Greet someone."""
    click.echo(f"Hello, {name}.")
