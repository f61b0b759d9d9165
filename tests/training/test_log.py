"""The training log as CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import pytest

from sait_deploy.training.log import LogEntry, to_csv, to_json

DENSE = LogEntry(1, 10, 0, 1.0, 1e-4, 2.5, 2.5, None, None, 12.5, None, None, 3.25, 49.2)
SPARSE = LogEntry(2, 10, 5, 0.7, 5e-5, 2.0, 1.5, 0.25, 0.25, 20.0, 17.5, 0.3, 3.0, 53.3)
BY_MASS = dataclasses.replace(SPARSE, epoch=3, mass_top1=15.0, mass=0.7)


def test_json_says_what_an_entry_says() -> None:
    assert [LogEntry(**entry) for entry in json.loads(to_json([DENSE, SPARSE, BY_MASS]))] == [DENSE, SPARSE, BY_MASS]
    assert to_json([]) == "[]\n"


def test_csv_has_a_heading_and_a_line_per_epoch() -> None:
    text = to_csv([DENSE, SPARSE, BY_MASS])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(LogEntry)]
    for entry, row in zip((DENSE, SPARSE, BY_MASS), rows, strict=True):
        for name, value in dataclasses.asdict(entry).items():
            assert row[name] == "" if value is None else float(row[name]) == value, name
    assert "\r" not in text
    assert to_csv([]).count("\n") == 1


def test_json_that_no_reader_would_take_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json([dataclasses.replace(DENSE, loss=math.nan)])
