"""Reports that earlier versions wrote still load; what they do not say is left open."""

from __future__ import annotations

from pathlib import Path

import pytest

from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.results import SCHEMA_VERSION
from sait_deploy.reports.table import Severity

OLD = Path(__file__).parent / "old"


@pytest.mark.parametrize(
    ("name", "weights", "warnings", "pruned"),
    [("schema3", "", 4, 0), ("schema4", "55009233", 0, 0), ("schema5", "55009233", 0, 2)],
    ids=["schema 3", "schema 4", "schema 5"],
)
def test_an_old_report_loads_with_what_it_says(name: str, weights: str, warnings: int, pruned: int) -> None:
    report = from_json((OLD / f"{name}.json").read_text(encoding="utf-8"))
    assert report.schema_version == SCHEMA_VERSION
    assert report.model == "sait_demo_digits"
    assert {variant.weights_sha256[:8] for variant in report.variants} == {weights}
    assert sum(variant.pruning is not None for variant in report.variants) == pruned
    assert {variant.precision for variant in report.variants} == ({"fp32"} if pruned else {None})
    assert {(variant.asked, variant.artifact) for variant in report.variants} == {(None, "")}
    assert {variant.group for variant in report.variants} == {group.name for group in report.groups}
    assert (report.skipped, report.together, report.over_fastest) == ((), (), ())
    assert (report.memory, report.roofline) == (None, None)
    assert sum(note.severity is Severity.WARNING for note in report.notes) == warnings
    assert not any(note.text.startswith("WARNING") for note in report.notes)
    assert from_json(to_json(report)) == report
