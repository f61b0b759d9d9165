"""Results as files: every format by its ending, and CSV beside JSON with the same figures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import sait_deploy
from sait_deploy.bench.results import Report
from sait_deploy.errors import InvalidArgument
from sait_deploy.report_files import check_ending
from tests.bench.sample import make_report, make_report_of_two
from tests.evaluation.sample import make_evaluation


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("report", [make_report(), make_report_of_two()], ids=["one runtime", "two"])
def test_a_benchmarks_lines_hold_the_figures_of_its_json(report: Report, tmp_path: Path) -> None:
    for ending in ("json", "csv", "html", "md"):
        sait_deploy.write_report(report, tmp_path / "below" / f"bench.{ending}")
    lines, written = rows(tmp_path / "below" / "bench.csv"), json.loads((tmp_path / "below" / "bench.json").read_text())
    assert len(lines) == len(written["rows"])
    labels = {variant["id"]: variant for variant in written["variants"]}
    for line, row in zip(lines, written["rows"], strict=True):
        variant = labels[row["variant"]]
        assert (line["label"], line["runtime"]) == (variant["label"], variant["runtime"])
        assert float(line["p50_ms"]) == row["p50_ms"] and int(line["batch"]) == row["batch"]
        assert line["speedup.median"] == ("" if row["speedup"] is None else str(row["speedup"]["median"]))
        assert "seconds" not in line


def test_an_evaluations_lines_hold_the_figures_of_its_json(tmp_path: Path) -> None:
    for ending in ("json", "csv", "html", "md", "svg"):
        sait_deploy.write_report(make_evaluation(), str(tmp_path / f"evaluation.{ending}"))
    lines, written = rows(tmp_path / "evaluation.csv"), json.loads((tmp_path / "evaluation.json").read_text())
    assert [line["label"] for line in lines] == [row["label"] for row in written["rows"]]
    assert [line["top1_percent"] for line in lines] == [str(row["top1_percent"]) for row in written["rows"]]


def test_a_recommendation_is_written_as_the_others_are(tmp_path: Path) -> None:
    found = sait_deploy.recommend(make_report())
    sait_deploy.write_report(found, tmp_path / "choice.csv")
    assert [line["label"] for line in rows(tmp_path / "choice.csv")] == [one.label for one in found.candidates]
    sait_deploy.write_report(found, tmp_path / "choice.html")
    assert sait_deploy.__version__ in (tmp_path / "choice.html").read_text(encoding="utf-8")


def test_an_unknown_ending_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidArgument, match="no known ending") as refused:
        check_ending(Report, Path("bench.svg"))
    assert refused.value.hint == "use one of .json, .csv, .html, .md"
