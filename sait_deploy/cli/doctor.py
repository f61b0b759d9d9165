"""``sait-deploy doctor``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys

import click

from sait_deploy.cli._command import Command
from sait_deploy.cli._options import json_option
from sait_deploy.cli._render import live_progress, show_next, show_tables
from sait_deploy.doctor import EXPORT, State, examine
from sait_deploy.reports.table import Table, words


@click.command(cls=Command, example="sait-deploy doctor")
@json_option
def command(as_json: bool) -> None:
    """Try what works on this machine, and say what to install for the rest."""
    # What packages print as they are imported is no result.
    with contextlib.redirect_stdout(sys.stderr), live_progress(keep_lines=False) as progress:
        findings = examine(progress)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
        return
    rows = [(f.part, f.state.value, f.detail, f.hint) for f in findings]
    show_tables(Table.of("", [words(heading) for heading in ("part", "state", "detail", "what to do")], rows))
    exports = any(finding.part == EXPORT and finding.state is State.WORKS for finding in findings)
    show_next("export") if exports else show_next("predict", "IMAGES", "--artifact", "ARTIFACT")
