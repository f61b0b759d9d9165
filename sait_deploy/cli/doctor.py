"""``sait-deploy doctor``."""

from __future__ import annotations

import dataclasses
import json

import click

from sait_deploy.cli.render import debug_option, show, table
from sait_deploy.doctor import examine


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@debug_option
def command(as_json: bool) -> None:
    """Try what works on this machine, and say what to install for the rest."""
    findings = examine()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
        return
    rows = [(f.part, f.state.value, f.detail, f.hint) for f in findings]
    columns = ("part", "state", "detail", "for it")
    show(table(None, columns, rows, words=columns))
