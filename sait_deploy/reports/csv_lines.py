"""Typed results as CSV: a line for each, and a column for each of their numbers, texts and truths."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping
from enum import Enum


def flat(result: object, name: str = "") -> dict[str, object]:
    """Returns a dataclass's fields in one level, those of a field that is one itself as ``field.name``.

    Lists have no place in a cell and are left out, and so is what is None.
    """
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        found: dict[str, object] = {}
        for field in dataclasses.fields(result):
            found |= flat(getattr(result, field.name), f"{name}.{field.name}" if name else field.name)
        return found
    if result is None or isinstance(result, (tuple, list)):
        return {}
    return {name: result.value if isinstance(result, Enum) else result}


def to_csv(rows: Iterable[Mapping[str, object]]) -> str:
    """Returns lines separated by commas below their columns' names; what a row has not is empty there."""
    held = list(rows)
    columns = list(dict.fromkeys(name for row in held for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(held)
    return text.getvalue()
