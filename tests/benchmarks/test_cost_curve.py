"""The cost curve: what is predicted and not run, fitted exponents, and two small cells measured and gone on with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cost_curve
from benchmarks.cost_curve import FORMS, MOST_SECONDS, Cell, expected, exponents, export, gains, measured, pays_from
from sait_deploy.runtime.precision import RunPrecision


def cell(size: int, batch: int, seconds: float, peak: int = 10**8, form: str = "dense") -> Cell:
    return Cell(size, batch, form, (seconds, 1.1 * seconds, 1.2 * seconds), peak)


def test_what_is_expected_grows_with_batch_and_tokens() -> None:
    cells = [cell(100, 1, 1.0, 10**9), cell(100, 4, 3.0, 3 * 10**9), cell(100, 4, 99.0, form="density")]
    assert expected([], 100, 1, "dense") == (0.0, 0.0)
    assert expected(cells, 100, 16, "dense") == (16.0, 10**9 + 2 * 10**9 * 4)
    seconds, held = expected(cells, 200, 4, "dense")
    assert seconds == 16.0
    assert held == 3 * 10**9 + 3 * 2 * 10**9


def test_beyond_what_was_not_run_nothing_is_run() -> None:
    cells = [cell(100, 1, 1.0), Cell(100, 4, "dense", (), 0, "over 60 s a run or 12 GB")]
    assert expected(cells, 200, 1, "dense")[0] < MOST_SECONDS
    assert expected(cells, 200, 4, "dense")[0] == float("inf")
    assert expected(cells, 100, 16, "dense")[0] == float("inf")


@given(st.floats(0.5, 3.0), st.floats(0.001, 1.0))
def test_exponents_are_those_that_the_times_were_made_with(power: float, first: float) -> None:
    cells = [cell(size, 1, first * (size / 100) ** (2 * power), size**2) for size in (100, 200, 400, 800)]
    (found,) = exponents(cells)
    assert found["seconds"] == pytest.approx(power, abs=0.002)
    assert found["seconds_between_sizes"] == pytest.approx([power] * 3, abs=0.002)
    assert found["peak_memory"] == pytest.approx(1.0, abs=0.002)


def test_pruning_pays_from_the_smallest_size_after_which_it_always_does() -> None:
    def gained(form: str, batch: int, *pays: bool) -> list[dict[str, object]]:
        return [{"form": form, "batch": batch, "size": 100 * i, "pays": pay} for i, pay in enumerate(pays, 1)]

    found = pays_from([*gained("density", 1, True, False, True, True), *gained("adaptive", 4, True, False)])
    assert found == [
        {"form": "density", "batch": 1, "size": 300},
        {"form": "adaptive", "batch": 4, "size": None},
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three forms of a small model at 64 pixels."""
    place = tmp_path_factory.mktemp("cost-curve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost_curve, "MODEL", "test_vit")
        export((64,), place)
    return place


@pytest.mark.slow
def test_cells_are_measured_in_processes_of_their_own_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_curve, "ROUNDS", 1)
    setting = "onnxruntime", RunPrecision.FP32
    found = measured(setting, (64,), (1, 2), folder)
    assert [(one.batch, one.form) for one in found] == [(batch, form) for batch in (1, 2) for form in FORMS]
    assert all(one.skipped is None and one.seconds and one.peak_bytes > 10**7 for one in found)
    assert {one["form"] for one in gains(found, folder)} == {"density", "adaptive"}
    monkeypatch.setattr(sys, "executable", "none")
    assert measured(setting, (64,), (1, 2), folder) == found
    child = CliRunner().invoke(cost_curve.main, ["--folder", str(folder), "--cell", "64", "3", "adaptive"])
    assert child.exit_code == 0, child.output
    assert len(json.loads(child.output)) == 2


@pytest.mark.slow
def test_a_precision_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_curve, "ROUNDS", 1)
    found = measured(("onnxruntime", RunPrecision.BF16), (64,), (1,), folder)
    assert all(one.skipped is not None and "bf16" in one.skipped for one in found)
