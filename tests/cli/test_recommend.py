"""``sait-deploy recommend``: a table, the choice, a command that runs; its own exit code where nothing is chosen."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, Workspace
from sait_deploy.bench.jsonform import to_json
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.results import Report
from sait_deploy.bench.run import BenchOptions, bench
from sait_deploy.bench.variants import Sweep
from sait_deploy.evaluation.results import from_json
from sait_deploy.recommending.deployment import deploying_commands
from tests.cli.calls import Outcome, Sait
from tests.exported import TinyExport

QUICK = ("--duration", "0.01", "--threads", "1")
TARGET_MISSED = 10


@pytest.fixture
def place(tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path) -> Path:
    """The default workspace of the folder that commands run in, with all forms exported last."""
    root = tmp_path / "artifacts"
    places = [root / artifact.path.name for artifact in (tiny.dense, tiny.half, tiny_adaptive)]
    for artifact, copy in zip((tiny.dense, tiny.half, tiny_adaptive), places, strict=True):
        shutil.copytree(artifact.path, copy)
    Workspace(root).record_last_export(places)
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without labels."""
    folder = tmp_path_factory.mktemp("images")
    for number, file in enumerate(sorted(demo.IMAGES.rglob("*.png"))[:8]):
        shutil.copy(file, folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def report(tiny: TinyExport, tiny_adaptive: Artifact, images: Path) -> Report:
    """A benchmark of all forms at a named point, at a mass and with forced numbers of tokens."""
    sweep = Sweep((0.31,), ("fast",), (KeptDistribution(5, 1),))
    options = BenchOptions((1, 2), threads=1, images=images, duration=0.01, warmup=0, sweep=sweep)
    return bench([tiny.dense, tiny.half, tiny_adaptive], options)


@pytest.fixture
def measured(place: Path, report: Report) -> Path:
    """The benchmark as a file, beside the workspace."""
    file = place.parent / "bench.json"
    file.write_text(to_json(report), encoding="utf-8")
    return file


def run_printed(sait: Sait, line: str, images: Path) -> Outcome:
    """Runs a command line as it was printed, on these images."""
    words = [str(images) if word == "IMAGES" else word for word in shlex.split(line)]
    assert words[0] == "sait-deploy"
    return sait(*words[1:])


@pytest.mark.parametrize("limits", [("--max-drop", "100"), ("--max-latency", "100000"), ("--max-drop", "0")])
def test_the_command_that_is_printed_runs(sait: Sait, measured: Path, images: Path, limits: tuple[str, str]) -> None:
    done = sait("recommend", "--bench", measured, *limits)
    assert done.code == 0, done.err
    assert "deploy " in done.out
    (line,) = (line for line in done.out.splitlines() if line.startswith("    sait-deploy predict IMAGES "))
    ran = run_printed(sait, line.strip(), images)
    assert ran.code == 0, ran.err
    assert len([row for row in ran.out.splitlines() if ".png" in row]) == 8


def test_there_is_a_command_for_every_point(sait: Sait, measured: Path, report: Report, images: Path) -> None:
    lines = {variant.label: deploying_commands(variant, Path("artifacts"))[0] for variant in report.variants}
    points = {"dense": "", "density 0.5": "", "fast": " --point fast", "mass 0.31": " --mass 0.31 --min-keep 1"}
    assert set(lines) == {*points, "kept 5 ± 1"}
    for label, point in points.items():
        assert lines[label].startswith("sait-deploy predict IMAGES --artifact artifacts/")
        assert point in lines[label]
        assert point or "--point" not in lines[label]
        assert run_printed(sait, lines[label], images).code == 0
    assert lines["kept 5 ± 1"].startswith("sait-deploy bench artifacts/")
    again = f"{lines['kept 5 ± 1']} --no-accuracy --duration 0.01 --threads 1 --batch 1"
    assert run_printed(sait, again, images).code == 0


def test_another_runtime_and_precision_are_part_of_the_command(place: Path, report: Report) -> None:
    dense = next(variant for variant in report.variants if variant.baseline)
    lines = [
        deploying_commands(dataclasses.replace(dense, runtime="openvino", precision=precision), place)[0]
        for precision in ("fp32", "bf16")
    ]
    assert lines[0].endswith(" --runtime openvino")
    assert lines[1].endswith(" --runtime openvino --precision bf16")
    (line,) = deploying_commands(dataclasses.replace(dense, runtime="openvino", device="GPU"), place)
    assert line.endswith(" --runtime openvino --device GPU")


def test_a_device_that_nothing_runs_on_is_an_error(sait: Sait, place: Path, measured: Path) -> None:
    done = sait("recommend", next(place.glob("*density*")), *QUICK, "--device", "GPU.9")
    assert (done.code, done.out) == (2, "")
    assert "- without onnxruntime: it runs on one kind of device alone" in done.err.splitlines()
    assert "GPU.9" in done.err.splitlines()[-2] and done.err.splitlines()[-2].startswith("error: nothing ran")
    done = sait("recommend", "--bench", measured, "--device", "GPU.9")
    assert (done.code, done.out) == (2, "")
    assert "with --bench nothing is measured, and --device says how" in done.err


def test_nothing_within_the_limits_is_an_exit_code_of_its_own_and_names_the_nearest(sait: Sait, measured: Path) -> None:
    done = sait("recommend", "--bench", measured, "--max-latency", "0.001")
    assert done.code == TARGET_MISSED
    error, hint = done.err.splitlines()[-2:]
    assert error.startswith(
        "error: nothing that was measured at batch 1 keeps to at most 0.001 ms a request; the nearest"
    )
    assert hint.startswith("hint: raise the limit")
    assert "img/s" in done.out, "the table is shown all the same"
    assert "sait-deploy predict" not in done.out


def test_without_a_benchmark_it_measures_on_what_works_here(sait: Sait, place: Path, images: Path) -> None:
    half = next(place.glob("*density*"))
    written = ("-o", "r.json", "-o", "r.svg", "-o", "r.md")
    done = sait("recommend", half, *QUICK, "--batch", "2", "--images", images, *written)
    assert done.code == 0, done.err
    found = json.loads(Path("r.json").read_text())
    groups = {(one["runtime"], one["precision"]) for one in found["candidates"]}
    assert ("onnxruntime", "fp32") in groups
    assert "- trying onnxruntime" in done.err.splitlines()
    assert found["batch"] == 2
    assert all(one["memory_bytes"] > 0 for one in found["candidates"])
    assert "Pareto front" in Path("r.svg").read_text()
    assert Path("r.md").read_text().startswith("## test_vit: what to deploy")


def test_an_evaluation_is_read(sait: Sait, measured: Path, images: Path) -> None:
    evaluate = ("evaluate", next(Path("artifacts").glob("*adaptive*")), "--images", images)
    done = sait(*evaluate, "--point", "fast=0.3,2,8", "--lower-resolution", "none", "--threads", "1", "-o", "e.json")
    assert done.code == 0, done.err
    assert from_json(Path("e.json").read_text()).runtime == "onnxruntime"
    done = sait("recommend", "--bench", measured, "--evaluation", "e.json")
    assert done.code == 0, done.err
    assert "are of the evaluation" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--bench", "none.json"), 5, "none.json cannot be read"),
        (("--bench", "cut.json"), 5, "cut.json: the benchmark report is not JSON"),
        (("--bench", "bench.json", "--evaluation", "cut.json"), 5, "cut.json: "),
        (("--bench", "bench.json", "--mass", "0.5"), 2, "with --bench nothing is measured, and --mass says how"),
        (("--bench", "bench.json", "artifacts"), 2, "with --bench nothing is measured, and ARTIFACT says how"),
        (("--bench", "bench.json", "--batch", "7"), 2, "batch 7 was not measured"),
        (("--bench", "bench.json", "-o", "r.pdf"), 2, "r.pdf has no known ending"),
        (("--max-drop", "-1"), 2, "a drop of at most -1 points cannot be"),
        (("--workspace", "empty"), 5, "nothing was exported to empty yet"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(
    sait: Sait, measured: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    Path("cut.json").write_text(measured.read_text()[:200])
    done = sait("recommend", *arguments)
    assert done.code == code
    error, hint = done.err.splitlines()[-2:]
    assert message in error
    assert hint.startswith("hint: ")


def test_an_artifact_that_is_elsewhere_is_said(sait: Sait, measured: Path) -> None:
    done = sait("recommend", "--bench", measured, "--max-drop", "100", "--workspace", "elsewhere")
    assert done.code == 0, done.err
    assert "no artifact in elsewhere is the one chosen" in done.err
    assert "sait-deploy predict" not in done.out
