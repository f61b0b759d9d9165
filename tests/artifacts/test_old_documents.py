"""Documents of earlier versions are read, and written again as the same text where their form is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.artifacts import manifest_document
from sait_deploy.bench import jsonform as bench_report
from sait_deploy.engine import manifest as engine_manifest
from sait_deploy.evaluation import results as evaluation_report
from sait_deploy.reports.table import Note, Severity

OLD = Path(__file__).parent / "old"


@pytest.mark.parametrize(
    ("name", "read", "write"),
    [
        ("artifact-manifest", manifest_document.from_json, manifest_document.to_json),
        ("engine-manifest", engine_manifest.from_json, engine_manifest.to_json),
    ],
)
def test_what_was_written_before_is_read_and_written_the_same(
    name: str, read: Callable[[str], Any], write: Callable[[Any], str]
) -> None:
    text = (OLD / f"{name}.json").read_text(encoding="utf-8")
    assert write(read(text)) == text


def test_an_evaluation_of_an_earlier_form_is_read_as_one_of_this() -> None:
    old = json.loads((OLD / "evaluation-report.json").read_text(encoding="utf-8"))
    old["notes"].append("WARNING: the images are few")
    evaluation = evaluation_report.from_json(json.dumps(old))
    assert evaluation.notes == (Note(old["notes"][0]), Note("the images are few", Severity.WARNING))
    new = json.loads(evaluation_report.to_json(evaluation))
    assert new.pop("precision") is None
    assert new | {"schema_version": 1, "notes": old["notes"]} == old


def test_a_benchmark_of_an_earlier_form_is_read_as_one_of_this() -> None:
    text = (OLD / "bench-report.json").read_text(encoding="utf-8")
    report = bench_report.from_json(text)
    assert (len(report.rows), len(report.variants)) == (2, 4)
    assert bench_report.from_json(bench_report.to_json(report)) == report
