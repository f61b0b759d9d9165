"""The GPU day: its steps on a processor, its time, and what it keeps."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_checks, gpu_day, gpu_full, gpu_steps
from benchmarks.gpu_day import DAY, FULL_DAY, FULL_MINUTES, MINUTES
from benchmarks.gpu_steps import FIRST, Setting, Step, rehearsal
from sait_deploy.errors import RuntimeUnavailable


@pytest.mark.parametrize("name", list(FULL_DAY))
def test_every_step_runs_on_a_processor(name: str) -> None:
    *_, found = FULL_DAY[name].run(rehearsal())
    assert json.loads(json.dumps(found)) == found
    assert not any("failed" in cell for cell in found.get("cells", ()))
    if name == "speed":
        (cell,) = found["cells"]
        assert cell["share"] == pytest.approx(cell["speed-up"] / cell["MAC ratio"])
        assert cell["MAC ratio"] > 1
    if name.startswith("tests of"):
        collected, all_found = map(int, re.findall(r"(\d+)/(\d+) tests collected", found["pytest"])[0])
        assert 2 < collected < all_found, "those on a GPU alone"
    if name == "kernels":
        first = found["cells"][0]
        both = first["microseconds"]["select"] + first["microseconds"]["pack"]
        assert first["share of the model"] == pytest.approx(both / first["microseconds"]["test_vit"])
        assert first["batch"] == 8 and first["reached"] == (first["share of the model"] < 0.01)


def test_a_day_fits_its_minutes() -> None:
    """Else the last steps would be left out wherever the first ones take their time."""
    assert sum(step.seconds for step in DAY.values()) <= 60 * MINUTES
    assert sum(step.seconds for step in FULL_DAY.values()) <= 60 * FULL_MINUTES


def test_what_a_day_is_about_comes_before_what_explains_it() -> None:
    order = list(DAY)
    assert order[0] == FIRST and order.index("speed") < order.index("attention")
    assert {"float32", "a million rows", "kernels"} < set(order)


def test_a_large_model_has_more_time() -> None:
    small, large = (
        FULL_DAY[f"everywhere, {model}"].seconds for model in ("vit_base_patch16_224", "vit_large_patch16_224")
    )
    assert large == 2 * small
    assert {f"everywhere, {model}" for model in gpu_full.MODELS} < set(FULL_DAY)


def test_logits_that_tf32_rounds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(gpu_checks.TorchRunner, "run_keeping", lambda self, images, keep: self.run(images, mass=1))
    with pytest.raises(SystemExit, match="test_vit: logits in float32 differ by"):
        list(gpu_checks.float32(rehearsal()))
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("name", [FIRST, "a million rows"])
def test_one_row_that_differs_from_the_reference_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_steps.pack_reference

    def wrong(keep: Any, counts: Any) -> Any:
        rows, ends = right(keep, counts)
        return rows[::-1], ends

    monkeypatch.setattr(gpu_steps, "pack_reference", wrong)
    with pytest.raises(SystemExit, match="rows differs from the reference"):
        list(FULL_DAY[name].run(rehearsal()))


def test_a_step_without_its_packages_is_left_out_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lacking = Step(1, FULL_DAY["attention"].run, ("no_such_package", "torch", "nor_this"))
    monkeypatch.setitem(DAY, "attention", lacking)
    monkeypatch.setitem(FULL_DAY, "attention", lacking)
    code, document = run(monkeypatch, tmp_path / "day.json", {})
    why = "left out, as there is no no_such_package and no nor_this"
    assert (code, document["steps"]["attention"]["state"]) == (1, why)
    done = CliRunner().invoke(
        gpu_day.main, ["--dry-run", "--step", "attention", "--output", str(tmp_path / "one.json")]
    )
    assert (done.exit_code, str(done.exception)) == (1, f"attention: {why}")


def test_a_tensorrt_that_is_not_installed_is_said_to_be_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_checks.importlib.util, "find_spec", lambda _: None)
    for step, package in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        assert list(FULL_DAY[step].run(rehearsal())) == [{"left out": f"{package} is not installed"}]

    def written(command: list[str], seconds: float) -> tuple[str, str]:
        Path(command[command.index("--output") + 1]).write_text('{"left out": "x is not installed"}', encoding="utf-8")
        return "done", ""

    monkeypatch.setattr(gpu_day, "_in_time", written)
    done = CliRunner().invoke(gpu_day.main, ["--dry-run", "--output", str(tmp_path / "day.json")])
    assert done.exit_code == 0 and "  left out: x is not installed\n" in done.output


@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
def test_the_tests_of_a_tensorrt_are_found(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(gpu_checks.importlib.util, "find_spec", lambda _: True)
    (found,) = gpu_checks.engines(rehearsal(), package)
    assert "selected" in found["pytest"] or "collected" in found["pytest"]


@pytest.mark.slow
def test_a_rehearsal_runs_each_step_in_a_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two of them; each alone is tried above."""
    place, steps = tmp_path / "day.json", (FIRST, "memory")
    monkeypatch.setattr(gpu_day, "FULL_DAY", {name: FULL_DAY[name] for name in steps})
    done = CliRunner().invoke(gpu_day.main, ["--full", "--dry-run", "--output", str(place)])
    assert done.exit_code == 0, done.output
    document = json.loads(place.read_text(encoding="utf-8"))
    assert {name: step["state"] for name, step in document["steps"].items()} == dict.fromkeys(steps, "done")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), RuntimeUnavailable("no memory", "a hint")])
def test_a_cell_that_does_not_fit_takes_no_other_along(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def cell(setting: Setting, spread: float) -> dict[str, Any]:
        if setting.batches == (1,):
            raise error
        return {"fits": True}

    monkeypatch.setattr(gpu_full, "_cell", cell)
    *_, found = gpu_full.everywhere(dataclasses.replace(rehearsal(), batches=(1, 2)), "test_vit")
    assert [one.get("failed") for one in found["cells"]] == ["no memory", None]


def run(monkeypatch: pytest.MonkeyPatch, place: Path, states: dict[str, str], *more: str) -> tuple[int, dict[str, Any]]:
    """Runs the command with steps that end as said, each known by the file that was there when it began."""

    def ended(name: str, seconds: float, dry_run: bool) -> dict[str, Any]:
        if name != next(iter(DAY)):
            kept = json.loads(place.read_text(encoding="utf-8"))["steps"]
            assert list(kept) == list(FULL_DAY)[: list(FULL_DAY).index(name)]
        return {"state": states.get(name, "done"), "seconds": seconds, "found": {}}

    monkeypatch.setattr(gpu_day, "_run_step", ended)
    done = CliRunner().invoke(gpu_day.main, ["--dry-run", "--output", str(place), *more])
    return done.exit_code, json.loads(place.read_text(encoding="utf-8"))


def test_results_are_kept_step_by_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, document = run(monkeypatch, tmp_path / "day.json", {})
    assert (code, list(document["steps"])) == (0, list(DAY))
    assert document["dry run"] is True
    assert document["environment"]["gpu"] == "none: times mean nothing"


def test_a_full_day_has_more_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, document = run(monkeypatch, tmp_path / "day.json", {}, "--full")
    assert (code, list(document["steps"])) == (0, list(FULL_DAY))
    assert document["command"].endswith("--full --minutes 250")


def test_a_failed_step_is_said_and_the_others_run_but_not_without_equal_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, document = run(monkeypatch, tmp_path / "day.json", {"speed": "failed"})
    assert code == 1
    assert [one["state"] for one in document["steps"].values()].count("done") == len(DAY) - 1
    for state in ("failed", "ended after 60 s"):
        code, document = run(monkeypatch, tmp_path / "day.json", {FIRST: state})
        assert code == 1
        assert {one["state"] for name, one in document["steps"].items() if name != FIRST} == {
            f"left out, as {FIRST} {state}"
        }


def test_no_step_gets_more_time_than_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, document = run(monkeypatch, tmp_path / "day.json", {}, "--minutes", "1")
    assert all(one["seconds"] <= 60 for one in document["steps"].values())
    code, document = run(monkeypatch, tmp_path / "day.json", {}, "--minutes", "0.01")
    assert code == 1
    assert {one["state"] for one in document["steps"].values()} == {"left out, as no time was left"}


def test_a_step_is_a_process_that_is_ended_in_time() -> None:
    result = gpu_day._run_step("operators", 0.2, dry_run=True)
    assert result["state"] == "ended after 0 s"
    assert "found" not in result


def test_what_a_step_started_ends_with_it(tmp_path: Path) -> None:
    """Its child would write half a second after the step's end, and holds none of the step's output."""
    place, started = tmp_path / "written", tmp_path / "started"
    child = f"touch {started}; sleep 2.5; touch {place}"
    code = f"import subprocess as s; s.run(['sh', '-c', {child!r}], stdout=s.DEVNULL, stderr=s.DEVNULL)"
    assert gpu_day._in_time([sys.executable, "-c", code], 2) == ("ended after 2 s", "")
    time.sleep(2.5)
    assert started.exists() and not place.exists()


def test_a_step_that_is_ended_leaves_what_it_found_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(command: list[str], seconds: float) -> tuple[str, str]:
        Path(command[command.index("--output") + 1]).write_text('{"cells": [1]}', encoding="utf-8")
        return f"ended after {seconds:.0f} s", ""

    monkeypatch.setattr(gpu_day, "_in_time", ended)
    result = gpu_day._run_step("speed", 420, dry_run=False)
    assert (result["state"], result["found"]) == ("ended after 420 s", {"cells": [1]})


def test_what_a_step_finds_is_written_as_it_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setting = dataclasses.replace(rehearsal(), batches=(1, 2))
    monkeypatch.setattr(gpu_day, "rehearsal", lambda: setting)
    kept: list[int] = []
    monkeypatch.setattr(gpu_day, "_write", lambda output, found: kept.append(len(found["cells"])))
    done = CliRunner().invoke(gpu_day.main, ["--dry-run", "--step", "speed", "--output", str(tmp_path / "found.json")])
    assert (done.exit_code, kept) == (0, [1, 2])


@pytest.mark.slow
def test_a_step_in_a_process_of_its_own_returns_what_it_found() -> None:
    result = gpu_day._run_step("operators", 300, dry_run=True)
    assert (result["state"], result["found"]) == ("done", {"equal to the definitions": True})


def test_without_a_gpu_it_says_so_and_how_to_rehearse(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = CliRunner().invoke(gpu_day.main, ["--output", str(tmp_path / "day.json")])
    assert done.exit_code == 1
    assert "needs an NVIDIA GPU" in str(done.exception.code if isinstance(done.exception, SystemExit) else done.output)
    assert not (tmp_path / "day.json").exists()
