"""``sait-deploy evaluate``: what is evaluated by default, what it prints and writes, and what it refuses."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from safetensors.torch import load_file, save_file

from sait_deploy import demo
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact, Workspace
from sait_deploy.evaluation.results import Evaluation, Kind, from_json
from sait_deploy.evaluation.sources import DENSITIES, MASSES
from sait_deploy.models.weights import SparseTraining, metadata_of
from sait_deploy.reports.table import Note
from sait_deploy.tokens import Score
from tests.cli.calls import Outcome, Sait
from tests.exported import TinyExport
from tests.siblings import with_int8

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"
BRIEF = ("--lower-resolution", "none", "--threads", "1")


@pytest.fixture
def brief(sait: Sait, digits: Path) -> Sait:
    """Evaluates ten digits, without rivals that take time."""

    def call(*arguments: object) -> Outcome:
        return sait("evaluate", *BRIEF, "--images", digits, *arguments)

    return call


def read(done: Outcome) -> Evaluation:
    """Reads what ``--json`` printed."""
    assert done.code == 0, done.err
    return from_json(done.out)


def ids(evaluation: Evaluation) -> list[str]:
    """Returns the rows that were asked for, without those found to be compared with."""
    return [row.id for row in evaluation.rows if not row.id.startswith("kept")]


def test_where_nothing_was_exported_the_demonstration_model_runs_on_a_grid(brief: Sait) -> None:
    done = brief("--json")
    evaluation = read(done)
    assert (evaluation.model, evaluation.runtime, evaluation.images) == (demo.NAME, "torch", 10)
    assert ids(evaluation) == ["dense", *(f"density{d}" for d in DENSITIES), *(f"mass{m:g}" for m in MASSES)]
    assert f"- no artifact or --model: evaluating the demonstration model, {demo.NAME}" in done.err.splitlines()


def test_the_last_export_is_evaluated_on_its_runtime(brief: Sait, workspace: Path, tmp_path: Path) -> None:
    """In ``artifacts``, where ``export`` puts it; of a dense and a pruned artifact, the pruned one."""
    workspace.rename(tmp_path / "artifacts")
    done = brief("--json")
    evaluation = read(done)
    assert evaluation.runtime == "onnxruntime"
    assert [row.kind for row in evaluation.rows] == [Kind.DENSE, Kind.DENSITY]
    assert f"- evaluating {PRUNED}" in done.err.splitlines()


def test_of_the_last_export_the_adaptive_artifact_comes_first(
    brief: Sait, tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    place = tmp_path / "elsewhere"
    shutil.copytree(tiny_adaptive.path.parent, place)
    names = [tiny.dense.path.name, tiny.half.path.name, tiny_adaptive.path.name]
    Workspace(place).record_last_export([place / name for name in names])
    done = brief("--json", "--workspace", place)
    evaluation = read(done)
    assert ids(evaluation) == ["dense", "mass0.6", "fast", "wide"], "at its own points"
    assert not evaluation.labelled, "ten digits are not the model's five classes"


def test_a_workspace_with_dense_alone_leaves_the_demonstration_model(
    brief: Sait, workspace: Path, tmp_path: Path
) -> None:
    Workspace(workspace).record_last_export([workspace / DENSE])
    assert read(brief("--json", "--workspace", workspace)).runtime == "torch"


def test_an_adaptive_artifact_runs_at_what_is_asked_for(brief: Sait, tiny_adaptive: Artifact) -> None:
    asked = ("--density", "0.5", "--mass", "0.9", "--point", "careful=0.8,4,20")
    evaluation = read(brief(tiny_adaptive.path, "--json", *asked))
    assert ids(evaluation) == ["dense", "density0.5", "mass0.9", "careful"]
    point = next(row.point for row in evaluation.rows if row.id == "careful")
    assert point is not None and (point.mass, point.min_keep, point.max_keep) == (0.8, 4, 20)


def test_a_model_runs_at_what_is_asked_for(brief: Sait, tiny: TinyExport) -> None:
    weights = ("--model", "test_vit", "--weights", tiny.weights, "--imgsz", "96")
    pruning = ("--density", "0.5", "--prune-at", "2", "--score", "cls")
    evaluation = read(brief(*weights, *pruning, "--json", "--control", "0.5"))
    assert ids(evaluation) == ["dense", "density0.5", "random0.5", "least-important0.5"]
    assert (evaluation.model, evaluation.prune_at, evaluation.score) == ("test_vit", 2, "cls")


@pytest.mark.parametrize(
    ("asked", "pruning"), [((), ("cls", 2)), (("--score", "mean"), ("mean", 2)), (("--prune-at", "0"), ("cls", 0))]
)
def test_a_model_is_pruned_as_it_was_trained_where_nothing_else_is_asked_for(
    brief: Sait, tiny: TinyExport, tmp_path: Path, asked: tuple[str, ...], pruning: tuple[str, int]
) -> None:
    weights, trained = tmp_path / "trained.safetensors", SparseTraining(Score.CLS, 2, 0.3, 1.0)
    save_file(load_file(tiny.weights), weights, metadata_of(trained, "abcde"))
    model = ("--model", "test_vit", "--weights", weights, "--imgsz", "96", "--density", "0.2")
    evaluation = read(brief(*model, *asked, "--json"))
    assert (evaluation.score, evaluation.prune_at) == pruning
    assert Note("density 0.2 is below density 0.3, the lowest that the weights were trained at") in evaluation.notes


def test_rivals_of_the_heights_asked_for(sait: Sait, digits: Path) -> None:
    options = ("--density", "0.5", "--lower-resolution", "64", "--lower-resolution", "48", "--threads", "1")
    evaluation = read(sait("evaluate", "--images", digits, "--json", *options))
    assert ids(evaluation) == ["dense", "density0.5", "64px", "48px"]


def test_rivals_of_equal_cost_are_found_by_default(sait: Sait, digits: Path) -> None:
    evaluation = read(sait("evaluate", "--images", digits, "--json", "--density", "0.5", "--threads", "1"))
    assert [row.kind for row in evaluation.rows] == [Kind.DENSE, Kind.DENSITY, Kind.LOWER_RESOLUTION]
    assert any(comparison.first == "density0.5" for comparison in evaluation.comparisons)


def test_the_table_says_what_each_row_costs_and_how_good_it_is(brief: Sait) -> None:
    done = brief("--density", "0.5", "--mass", "0.9")
    assert done.code == 0, done.err
    title, headings, dense, *rest = done.out.splitlines()
    assert title.startswith("sait_demo_digits · torch · 10 images (")
    assert [part for part in re.split("  +", headings) if part][:4] == [
        "MAC ratio ×",
        "kept mean / p95 / max",
        "top-1 %",
        "change [95 %]",
    ]
    assert dense.split()[:3] == ["dense", "1.00", "144"]
    assert any(re.match(r"density 0\.5 +1\.66 +72 ", line) for line in rest)
    assert any(re.match(r"mass 0\.9 − \d+ tokens at equal MACs: ", line) for line in rest)
    assert any(line.startswith("Points of top-1 gained over dense, by class") for line in rest)


def test_reports_are_written_in_every_form(brief: Sait, tmp_path: Path) -> None:
    outputs = [tmp_path / "below" / f"report{ending}" for ending in (".json", ".md", ".html", ".SVG")]
    done = brief("--density", "0.5", *(part for output in outputs for part in ("-o", output)))
    assert done.code == 0, done.err
    evaluation = from_json(outputs[0].read_text())
    assert ids(evaluation) == ["dense", "density0.5"]
    assert "| density 0.5 |" in outputs[1].read_text()
    assert ">density 0.5</th>" in outputs[2].read_text()
    assert ET.fromstring(outputs[3].read_text()).tag.endswith("svg")
    assert sorted(outputs[0].parent.iterdir()) == sorted(outputs)
    assert [f"- wrote {output}" for output in outputs] == done.err.splitlines()[-4:]


def test_a_plot_without_matplotlib_is_refused_before_anything_runs(
    brief: Sait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = brief("--density", "0.5", "-o", tmp_path / "r.svg")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        "error: drawing plots needs matplotlib, which is not installed", "hint: pip install 'sait-deploy[report]'"
    ]  # fmt: skip
    assert brief("--density", "0.5", "-o", tmp_path / "r.md").code == 0


def test_random_weights_are_warned_of(brief: Sait) -> None:
    done = brief("--random-weights", "--density", "0.5", "--limit", "4")
    assert done.code == 0, done.err
    assert "· 4 images (" in done.out.splitlines()[0]
    assert any(re.match("warning: .*weights are random", line) for line in done.err.splitlines())


REFUSED = [
    (["-o", "report.pdf"], 2, "report report.pdf has no known ending"),
    (["--density", "0"], 2, "density 0 is outside (0, 1]"),
    (["--mass", "much"], 2, "mass 'much' is not a number"),
    (["--point", "fast"], 2, "point 'fast' is not NAME="),
    (["--lower-resolution", "small"], 2, "--lower-resolution small is no height in pixels"),
    (["--lower-resolution", "none", "--lower-resolution", "64"], 2, "is no height in pixels"),
    (["--limit", "0"], 2, "below 1"),
    (["--bench", "nowhere.json"], 5, "nowhere.json cannot be read"),
    (["--runtime", "onnxruntime"], 2, "a model is evaluated in torch"),
    (["--runtime", "tensorflow"], 2, "unknown runtime 'tensorflow'"),
    (["--weights", "a.pth", "--pretrained"], 2, "--weights and --pretrained name different weights"),
    (["--model", "deit_tiny_patch16_224"], 2, "no weights were named"),
    (["--prune-at", "6"], 2, "prune_at 6 is no block"),
    (["nowhere"], 5, "artifact nowhere does not exist"),
    (["--images", "nowhere"], 8, "nowhere"),
    (["--device", "nonsense"], 7, "torch cannot use device 'nonsense'"),
    (["--device", ""], 2, "a device without a name"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED, ids=lambda value: str(value)[:50])
def test_bad_input_gets_one_line_and_writes_nothing(
    sait: Sait, digits: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    given = [*arguments] if "--images" in arguments else ["--images", digits, *arguments]
    done = sait("evaluate", "-o", "report.json", "--threads", "1", *given)
    assert (done.code, done.out) == (code, "")
    error = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits"]


@pytest.mark.parametrize(
    "option",
    [
        ("--model", "test_vit"),
        ("--pretrained",),
        ("--random-weights",),
        ("--imgsz", "96"),
        ("--score", "cls"),
        ("--prune-at", "2"),
    ],
)
def test_what_an_artifact_has_of_its_own_cannot_be_chosen(
    brief: Sait, tiny_adaptive: Artifact, option: tuple[str, ...]
) -> None:
    done = brief(tiny_adaptive.path, *option)
    assert (done.code, done.out) == (2, "")
    error, hint = done.err.splitlines()
    assert error.startswith(f"error: {option[0]} cannot be chosen for an artifact") and "--model" in hint


def test_a_place_that_cannot_be_written_is_found_before_the_work(brief: Sait, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = brief("-o", "file/report.json")
    assert (done.code, done.out) == (9, "")
    assert done.err.startswith("error: cannot write file/report.json"), "nothing was begun"


def test_a_damaged_last_export_is_not_passed_over(brief: Sait, workspace: Path) -> None:
    (workspace / PRUNED / MODEL_FILE).write_bytes(b"")
    done = brief("--workspace", workspace)
    assert (done.code, done.out) == (5, "")
    assert f"{MODEL_FILE} is empty" in done.err


def test_an_unreadable_image_is_named(brief: Sait, digits: Path) -> None:
    (digits / "3" / "notes.png").write_text("no image")
    done = brief("--density", "0.5", "-o", "report.json")
    assert (done.code, done.out) == (8, "")
    assert str(digits / "3" / "notes.png") in done.err
    assert not Path("report.json").exists()


def test_int8_is_the_artifact_that_was_made_from_it(brief: Sait, tiny: TinyExport, tmp_path: Path) -> None:
    for artifact, quantised in zip((tiny.dense, tiny.half), with_int8(tmp_path, tiny.dense, tiny.half), strict=True):
        place = tmp_path / artifact.path.name
        for given, precision in ((place, "int8"), (quantised.path, "int8"), (quantised.path, "fp32")):
            evaluation = read(brief(given, "--precision", precision, "--json"))
            assert (evaluation.runtime, evaluation.precision) == ("onnxruntime", precision)


def test_a_precision_is_for_artifacts_that_run_in_it(brief: Sait, tiny: TinyExport) -> None:
    for given, code, message in (
        (("--model", demo.NAME), 2, "--precision int8 is for artifacts"),
        ((tiny.half.path,), 5, "no int8 artifact made from test_vit-96px-density0.5 is beside it"),
    ):
        done = brief(*given, "--precision", "int8")
        assert (done.code, done.out) == (code, "")
        assert message in done.err.splitlines()[-2]


@pytest.mark.parametrize(
    ("runtime", "code", "message"),
    [
        (None, 2, "onnxruntime runs on one kind of device alone, not on 'nonsense'"),
        ("openvino", 7, "OpenVINO has no device NONSENSE here"),
        ("torch", 7, "torch cannot use device 'nonsense'"),
    ],
)
def test_a_device_is_that_of_the_runtime_that_answers(
    brief: Sait, tiny_adaptive: Artifact, runtime: str | None, code: int, message: str
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    chosen = [] if runtime is None else ["--runtime", runtime]
    done = brief(tiny_adaptive.path, *chosen, "--device", "nonsense")
    assert (done.code, done.out) == (code, "")
    (error,) = (line for line in done.err.splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: {message}")
    done = brief(tiny_adaptive.path, *chosen, "--device", "CPU")
    assert done.code == 0, done.err
