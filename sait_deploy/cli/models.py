"""``sait-deploy models``."""

from __future__ import annotations

import json
from collections import Counter

import click

from sait_deploy import demo
from sait_deploy.cli._command import Command
from sait_deploy.cli._options import json_option
from sait_deploy.cli._render import counted, live_progress, show_next, show_tables
from sait_deploy.errors import ModelError
from sait_deploy.reports.table import Table, figures, words


@click.command(cls=Command, example="sait-deploy models 'deit*'")
@click.argument("pattern", default="", metavar="[FILTER]")
@json_option
def command(pattern: str, as_json: bool) -> None:
    """List the models that can be exported, by part of the name or a wildcard such as 'deit*', and their families."""
    rows = []
    with live_progress(keep_lines=False) as progress:
        progress("looking through timm's models")
        from sait_deploy.models.creation import family_name, model_entry, supported_names
        from sait_deploy.models.families import FAMILIES

        for name in supported_names(pattern.lower()):
            entry = model_entry(name)
            own = counted(entry.pretrained, "set") if entry.pretrained else "none"
            rows.append((name, str(entry.image_size), "shipped" if name == demo.NAME else own, family_name(name)))
    if not rows:
        raise ModelError(f"no supported model's name has {pattern!r} in it", "list all: sait-deploy models")
    if as_json:
        names = ("model", "image size", "pretrained weights", "family")
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return
    columns = [words("model"), figures("image size"), figures("pretrained weights"), words("family")]
    counts = Counter(family for *_, family in rows)
    families = [
        (key, str(counts[key]), family.models) for key, family in FAMILIES.items() if counts[key] or not pattern
    ]
    tables = [
        Table.of("", columns, rows),
        Table.of("Families", [words("family"), figures("names"), words("models")], families),
    ]
    if not pattern:
        tables.append(_hugging_face())
    show_tables(*tables)
    first, _, weights, _ = rows[0] if len(rows) == 1 else next((row for row in rows if row[0] != demo.NAME), rows[0])
    sources = {"shipped": [], "none": ["--weights", "FILE"]}
    show_next("export", "--model", first, *sources.get(weights, ["--pretrained"]))


def _hugging_face() -> Table:
    from sait_deploy.models.hugging_face import CLASSES

    kinds: dict[str, list[str]] = {}
    for architecture, served in CLASSES.items():
        kinds.setdefault(served.kind, []).append(architecture)
    rows = [(kind, str(len(names)), ", ".join(names)) for kind, names in kinds.items()]
    columns = [words("type"), figures("classes"), words("architectures in config.json")]
    return Table.of("Folders and hub names of Hugging Face", columns, rows)
