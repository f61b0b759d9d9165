"""``sait-deploy bench`` on several runtimes, and on engines that cannot run here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.bench.jsonform import from_json
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.cuda import find_device
from sait_deploy.engine.options import BatchRange, BuilderChoice, EngineOptions
from sait_deploy.errors import MissingDependency
from tests.cli.calls import Outcome, Sait

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"
QUICK = ("--duration", "0.01", "--warmup", "0", "--threads", "1", "--batch", "1")


@pytest.fixture
def quick(sait: Sait, digits: Path) -> Sait:
    """Measures for as short a time as can be, at batch 1."""

    def call(*arguments: object) -> Outcome:
        return sait("bench", *QUICK, "--images", digits, *arguments)

    return call


def variants(out: str) -> list[str]:
    """Returns which variants the rows of all tables are of, with the batch size where it is printed."""
    return ["".join(found) for found in re.findall(r"^ +(1 )? *(dense|density 0\.6) ", out, flags=re.MULTILINE)]


def test_a_report_covers_every_runtime_asked_for(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / PRUNED, "--runtime", "torch", "--runtime", "onnxruntime", "-o", "r.json")
    assert done.code == 0, done.err
    apart, _, together = done.out.partition("Over the fastest dense of all")
    assert variants(apart) == ["1 dense", "density 0.6"] * 2
    assert len(re.findall(r"(dense|density 0\.6) on (?:torch|onnxruntime) ", together.partition("Groups are")[0])) == 4
    titles = [line.split("·")[1].strip() for line in done.out.splitlines() if "· end-to-end" in line]
    assert titles == [info.name for info in from_json(Path("r.json").read_text()).groups] == ["torch", "onnxruntime"]
    assert "break-even: density 0.6 on torch is " in done.out
    assert "- torch: batch 1: 2 variants in turn, 0.01 s" in done.err.splitlines()


@pytest.fixture(scope="module")
def built(demo_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace as ``export`` and ``build-engine`` leave it. Read it only."""
    pytest.importorskip("tensorrt_rtx")
    place = Path(shutil.copytree(demo_workspace, tmp_path_factory.mktemp("built") / "artifacts"))
    options = EngineOptions(BuilderChoice.TENSORRT_RTX, targets=("sm89",), batch=BatchRange(1, 1, 2))
    for name in (DENSE, PRUNED):
        build_engine(open_artifact(place / name), options)
    return place


no_gpu = pytest.mark.skipif(find_device() is not None, reason="engines run here")


@no_gpu
def test_engines_that_were_built_and_cannot_run_here_are_said_to_and_nothing_fails(
    quick: Sait, built: Path, tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "artifacts")
    done = quick("--min-speedup", "0.001")
    assert done.code == 0, done.err
    assert variants(done.out) == ["1 dense", "density 0.6"]
    before, _, after = done.out.partition("Runtimes without figures")
    assert "cannot run here" not in before
    assert after.count("cannot run here: ") == 1
    assert "- tensorrt-rtx: nothing can run here: " in done.err


@no_gpu
@pytest.mark.parametrize("further", [(), ("--runtime", "onnxruntime"), ("--min-speedup", "0.001")], ids=" ".join)
def test_engines_that_were_asked_for_and_cannot_run_here_fail_after_the_table(
    quick: Sait, built: Path, further: tuple[str, ...]
) -> None:
    done = quick(built / PRUNED, "--runtime", "tensorrt-rtx", *further, "-o", "r.json")
    report = from_json(Path("r.json").read_text())
    assert done.code == report.refusals[0].exit_code in (3, 7)
    assert done.out.count("cannot run here: ") == 1
    *_, error, hint = done.err.splitlines()
    assert error == f"error: dense cannot run on tensorrt-rtx here: {report.refusals[0].reason}"
    assert hint == f"hint: {report.refusals[0].hint}"
    assert bool(report.rows) == ("onnxruntime" in further)


def test_what_was_not_asked_for_may_be_missing_but_onnxruntime_is_always_asked_for(
    quick: Sait, demo_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: str) -> None:
        raise MissingDependency("onnxruntime", "running an artifact", extra="cpu")

    monkeypatch.setattr("sait_deploy.runtime.onnxruntime.require_onnxruntime", missing)
    done = quick(demo_workspace / PRUNED)
    assert done.code == 3
    assert done.err.splitlines()[-1] == "hint: pip install 'sait-deploy[cpu]'"
    assert "running an artifact needs onnxruntime, which is not installed" in done.out


def test_precisions_are_lists_and_what_does_not_exist_is_one_line(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / PRUNED, "--runtime", "onnxruntime", "--precision", "fp32,bf16", "--precision", "int8")
    assert done.code == 0, done.err
    assert variants(done.out.partition("Skipped")[0]) == ["1 dense", "density 0.6"]
    skipped = done.out.partition("Skipped")[2].splitlines()
    assert [line.split()[:3] for line in skipped if line.startswith("onnxruntime ")] == [
        ["onnxruntime", "bf16", "all"],
        ["onnxruntime", "int8", "all"],
    ]
    assert "run: sait-deploy quantize" in done.out and "Over the fastest" not in done.out


@pytest.mark.parametrize(("precision", "code"), [("bf16", 2), ("int8", 5), ("int8,bf16", 5)])
def test_where_nothing_is_left_the_first_reason_is_the_error(
    quick: Sait, demo_workspace: Path, precision: str, code: int
) -> None:
    done = quick(demo_workspace / PRUNED, "--precision", precision, "-o", "r.json")
    assert done.code == code
    error, hint = done.err.splitlines()[-2:]
    assert error.startswith(f"error: onnxruntime {precision.partition(',')[0]} is skipped: ")
    assert hint.startswith("hint: ")
    assert len(from_json(Path("r.json").read_text()).skipped) == precision.count(",") + 1


def test_a_precision_that_there_is_not(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / PRUNED, "--precision", "fp32,fp8")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[0] == "error: --precision cannot be 'fp8'"


@pytest.mark.parametrize("runtimes", [(), ("--runtime", "onnxruntime"), ("--runtime", "onnxruntime,openvino")])
def test_a_device_that_is_not_there_skips_each_runtime_and_fails_where_nothing_is_left(
    quick: Sait, demo_workspace: Path, runtimes: tuple[str, ...]
) -> None:
    done = quick(demo_workspace / PRUNED, *runtimes, "--device", "GPU.9", "-o", "r.json")
    assert done.code == 2
    error, hint = done.err.splitlines()[-2:]
    assert error == (
        "error: onnxruntime GPU.9 is skipped: onnxruntime runs on one kind of device alone, not on 'GPU.9'"
    )
    assert hint == "hint: use openvino, torch"
    report = from_json(Path("r.json").read_text())
    assert (report.rows, {skip.device for skip in report.skipped}) == ((), {"GPU.9"})
    assert len(report.skipped) == (2 if "onnxruntime,openvino" in runtimes else 1)


def test_what_runs_on_a_device_is_measured_beside_what_does_not(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / PRUNED, "--runtime", "torch,onnxruntime", "--device", "cuda:9", "-o", "r.json")
    assert done.code == 7, done.err
    done = quick(demo_workspace / PRUNED, "--runtime", "torch,onnxruntime", "--device", "CPU:0", "-o", "r.json")
    assert done.code == 0, done.err
    report = from_json(Path("r.json").read_text())
    (group,), (skip,) = report.groups, report.skipped
    assert (group.name, group.device, group.environment["device"]) == ("torch CPU:0", "CPU:0", "cpu:0")
    assert (skip.group, skip.device) == ("onnxruntime CPU:0", "CPU:0")
    assert {variant.group for variant in report.variants} == {"torch CPU:0"}
