"""What a shell completes: models, runtimes and artifacts."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from sait_deploy.artifacts.folder import MANIFEST_FILE
from sait_deploy.runtime.registry import RUNTIMES


def runtimes(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the runtimes that begin so; of a list with commas, those that its last part may be."""
    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(f"{before}{comma}{name}") for name in RUNTIMES if name.startswith(last)]


def models(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the models that begin so."""
    from sait_deploy.models.creation import supported_names

    return [CompletionItem(name) for name in supported_names("") if name.startswith(incomplete)]


def artifacts(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the artifacts in ``artifacts`` and in the folder begun, else has the shell complete folders."""
    begun = Path(incomplete)
    folders = {Path("artifacts"), begun, begun.parent}
    found = sorted({str(place.parent) for folder in folders for place in folder.glob(f"*/{MANIFEST_FILE}")})
    fitting = [CompletionItem(place) for place in found if place.startswith(incomplete)]
    return fitting or [CompletionItem(incomplete, type="dir")]
