"""Notes of evaluations, which mark a warning by how its text begins."""

from __future__ import annotations

from collections.abc import Sequence

from sait_deploy.bench.stats import WARNING
from sait_deploy.reports.wording import NOTHING

__all__ = ["NOTHING", "ordered_notes"]


def ordered_notes(notes: Sequence[str]) -> list[tuple[bool, str]]:
    """Returns (is a warning, text without the word) for every note, warnings first."""
    split = [(note.startswith(WARNING), note.removeprefix(WARNING)) for note in notes]
    return sorted(split, key=lambda pair: not pair[0])
