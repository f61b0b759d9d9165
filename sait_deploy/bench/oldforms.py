"""Reports of earlier schema versions, brought to the present form; what they do not say is left open."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from sait_deploy.bench.results import AccuracyMeasure
from sait_deploy.reports.table import Severity
from sait_deploy.system.reading import parse_json

_OLD: Final = (3, 4, 5)
_WARNING: Final = "WARNING: "
"""How a note without severity begins that is a warning."""


def upgraded(text: str) -> str:
    """Returns the text of a report of schema 3 to 5 in the form of 6, and any other text as it is.

    Schema 5 has runtimes in place of groups, and variants that do not name their artifact. Schema 4 has notes without
    severity, variants without pruning and precision, and two figures of accuracy; 3 has no hash of weights either.
    """
    try:
        data = parse_json(text)
    except ValueError:
        return text
    if not isinstance(data, dict) or type(data.get("schema_version")) is not int or data["schema_version"] not in _OLD:
        return text
    if data["schema_version"] < 5:
        _bring_to_5(data)
    for variant in _objects(data.get("variants")):
        variant |= {"asked": None, "artifact": ""}
    groups = data.pop("runtimes", None)
    for group in _objects(groups):
        group |= {"runtime": group.pop("name", None), "asked": None}
    further: dict[str, object] = {
        "skipped": [],
        "together": [],
        "over_fastest": [],
        "memory": None,
        "roofline": None,
    }
    return json.dumps(data | further | {"schema_version": 6, "groups": groups})


def _bring_to_5(data: dict[str, Any]) -> None:
    for variant in _objects(data.get("variants")):
        if data["schema_version"] < 4:
            variant.setdefault("weights_sha256", "")
        variant |= {"accuracy": _accuracy(variant.get("accuracy")), "pruning": None, "precision": None}
    data["notes"] = notes_with_severity(data.get("notes"))


def _objects(values: object) -> Iterable[dict[str, Any]]:
    return (value for value in values if isinstance(value, dict)) if isinstance(values, list) else ()


def _accuracy(value: object) -> object:
    """Returns the one figure of accuracy that today's form has: top-1, or where there is none agreement with dense."""
    if not isinstance(value, dict):
        return value
    for measure, name in ((AccuracyMeasure.TOP1, "top1_percent"), (AccuracyMeasure.AGREEMENT, "agreement_percent")):
        if value.get(name) is not None:
            return {"measure": measure.value, "images": value.get("images"), "percent": value[name]}
    return None


def notes_with_severity(notes: object) -> object:
    """Returns notes that were written as texts in the form of ``Note``, anything else as it is."""
    return [_note(note) if isinstance(note, str) else note for note in notes] if isinstance(notes, list) else notes


def _note(text: str) -> dict[str, str]:
    severity = Severity.WARNING if text.startswith(_WARNING) else Severity.INFO
    return {"text": text.removeprefix(_WARNING), "severity": severity.value}
