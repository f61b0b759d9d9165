"""``sait-deploy bench``: what is measured by default, what it prints, the reports it writes, and its use in CI."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import MANIFEST_FILE, MODEL_FILE, Artifact
from sait_deploy.bench.jsonform import from_json
from sait_deploy.bench.results import AccuracyMeasure, Timing
from sait_deploy.runtime.registry import RUNTIMES
from tests.cli.calls import Outcome, Sait

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"
ADAPTIVE = ["dense", "mass 0.6", "fast", "wide"]
QUICK = ("--duration", "0.01", "--warmup", "0", "--threads", "1")


@pytest.fixture
def quick(sait: Sait, digits: Path) -> Sait:
    """Measures for as short a time as can be, at batch 1."""

    def call(*arguments: object) -> Outcome:
        return sait("bench", *QUICK, "--batch", "1", "--images", digits, *arguments)

    return call


def variants(out: str) -> list[str]:
    """Returns which variants the rows of a table are of, with the batch size where it is printed."""
    found = re.findall(r"^ +(1 +)?(dense|density 0\.6) ", out, flags=re.MULTILINE)
    return [f"{batch.strip()} {variant}".strip() for batch, variant in found]


def test_without_arguments_the_last_export_is_measured(quick: Sait, workspace: Path, tmp_path: Path) -> None:
    """In ``artifacts``, where ``export`` puts it."""
    workspace.rename(tmp_path / "artifacts")
    done = quick()
    assert done.code == 0, done.err
    assert variants(done.out) == ["1 dense", "density 0.6"]
    title, *_ = done.out.splitlines()
    assert title.split() == ["sait_demo_digits", "·", "onnxruntime", "·", "end-to-end"]
    assert "break-even: density 0.6 is " in done.out
    assert "never trained sparse" not in done.out
    assert "- batch 1: 2 variants in turn, 0.01 s" in done.err.splitlines()


def test_dense_alone_has_nothing_to_compare(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / DENSE)
    assert done.code == 0, done.err
    assert variants(done.out) == ["1 dense"]
    assert "break-even" not in done.out
    done = quick(demo_workspace / DENSE, "--min-speedup", "1")
    assert (done.code, done.out) == (2, "")
    assert "nothing to judge" in done.err


def test_batch_sizes_are_measured_in_their_order_each_once(sait: Sait, demo_workspace: Path, digits: Path) -> None:
    done = sait("bench", *QUICK, "--images", digits, "--batch", " 2,1 , 2", "-o", "r.json", demo_workspace / DENSE)
    assert done.code == 0, done.err
    report = from_json(Path("r.json").read_text())
    assert [row.batch for row in report.rows] == [2, 1]


@pytest.mark.parametrize("batch", ["", "1,x", "1;8", "1.5", "0", "-1", "1,,8"])
def test_batch_sizes_that_are_none(sait: Sait, demo_workspace: Path, batch: str) -> None:
    done = sait("bench", demo_workspace / DENSE, "--batch", batch)
    assert (done.code, done.out) == (2, "")
    assert "batch" in done.err.splitlines()[0]
    assert done.err.splitlines()[1].startswith("hint: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--duration", "0"),
        ("--duration", "nan"),
        ("--duration", "inf"),
        ("--min-speedup", "nan"),
        ("--min-speedup", "-1"),
        ("--warmup", "-1"),
        ("--threads", "0"),
        ("--timing", "wall"),
        ("--runtime", "tvm"),
        ("--output", "report.pdf"),
        ("--output", "report"),
    ],
    ids=" ".join,
)
def test_options_that_cannot_be_used_are_refused_before_anything_runs(
    sait: Sait, demo_workspace: Path, arguments: tuple[str, str]
) -> None:
    done = sait("bench", demo_workspace / PRUNED, *arguments)
    assert (done.code, done.out) == (2, "")
    assert not [line for line in done.err.splitlines() if line.startswith("- ")], "work was begun"


def test_an_unknown_runtime_is_told_the_known_ones(sait: Sait, demo_workspace: Path) -> None:
    done = sait("bench", demo_workspace / PRUNED, "--runtime", "tvm")
    assert done.err.splitlines() == [
        "error: unknown runtime 'tvm'",
        f"hint: known are {', '.join(RUNTIMES)}",
    ]


def test_json_holds_every_sample_and_what_it_ran_on(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / PRUNED, "-o", "below/r.JSON")
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1].startswith(("- wrote below", "warning: "))
    report = from_json(Path("below/r.JSON").read_text(encoding="utf-8"))
    assert (report.model, report.timing) == ("sait_demo_digits", Timing.END_TO_END)
    assert [info.name for info in report.groups] == ["onnxruntime"]
    manifest = json.loads((demo_workspace / PRUNED / MANIFEST_FILE).read_text())
    assert report.variants[1].model_sha256 == manifest["files"][MODEL_FILE]
    assert report.environment["threads"] == "1"
    assert [path.name for path in Path("below").iterdir()] == ["r.JSON"]


def test_markdown(quick: Sait, demo_workspace: Path) -> None:
    assert quick(demo_workspace / PRUNED, "-o", "r.md").code == 0
    assert "| density 0.6 |" in Path("r.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["file/r.json", "folder.md"])
def test_a_report_that_cannot_be_written_is_known_before_measuring(
    quick: Sait, demo_workspace: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.md").mkdir()
    done = quick(demo_workspace / PRUNED, "-o", place)
    assert (done.code, done.out) == (9, "")
    assert f"cannot write {place}" in done.err
    assert not [line for line in done.err.splitlines() if line.startswith("- ")], "work was begun"


def test_a_speed_up_below_the_limit_fails_after_the_table_and_the_report(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / PRUNED, "--min-speedup", "1000", "-o", "r.json")
    assert done.code == 10
    assert variants(done.out) == ["1 dense", "density 0.6"]
    assert "below --min-speedup 1000" in done.err
    assert from_json(Path("r.json").read_text()).rows
    assert quick(demo_workspace / PRUNED, "--min-speedup", "0.001").code == 0


def test_compute_alone_is_timed_and_said(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / PRUNED, "--timing", "compute")
    assert done.code == 0, done.err
    assert "· onnxruntime · compute" in done.out.splitlines()[0]
    assert "top-1" in done.out and "agrees" not in done.out


def test_every_named_point_of_an_adaptive_artifact_is_a_row_here_and_in_html(
    quick: Sait, tiny_adaptive: Artifact
) -> None:
    done = quick(tiny_adaptive.path, "-o", "r.html")
    assert done.code == 0, done.err
    assert re.findall(r"^ +(?:1 +)?(dense|mass 0\.6|fast|wide) ", done.out, flags=re.MULTILINE) == ADAPTIVE
    assert "10 images" in done.out and "onnxruntime and torch" in done.out
    page = Path("r.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert all(re.search(rf"</i>\s*{re.escape(label)}</th>", page) for label in ADAPTIVE)


def test_points_masses_and_forced_counts_are_measured_instead(quick: Sait, tiny_adaptive: Artifact) -> None:
    asked = ("--mass", "1", "--kept", "12:5", "--mass", "0.5", "--point", "fast", "--kept", "9:0")
    done = quick(tiny_adaptive.path, *asked, "-o", "r.json", "--min-speedup", "1000")
    assert done.code == 10
    assert "error: fast at batch 1 is " in done.err
    report = from_json(Path("r.json").read_text(encoding="utf-8"))
    labels = [variant.label for variant in report.variants]
    assert labels == ["dense", "fast", "mass 1", "mass 0.5", "kept 12 ± 5", "kept 9 ± 0"]
    assert (report.rows[2].kept_mean, report.rows[2].mac_ratio, report.rows[5].kept_mean) == (36, 1, 9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--kept", "105"), "kept tokens '105' are not MEAN:SD"),
        (("--mass", "nan"), "mass nan is no number from 0 on"),
        (("--mass", "much"), "mass 'much' is not a number"),
        (("--point", "slow"), "test_vit-96px-adaptive has no point 'slow'"),
    ],
)
def test_a_point_that_is_none(quick: Sait, tiny_adaptive: Artifact, asked: tuple[str, str], message: str) -> None:
    done = quick(tiny_adaptive.path, *asked)
    error, hint = done.err.splitlines()
    assert (done.code, done.out, error) == (2, "", f"error: {message}")
    assert hint.startswith("hint: ")


def test_counts_that_would_mean_nothing_and_points_of_nothing_adaptive(
    sait: Sait, tiny_adaptive: Artifact, demo_workspace: Path
) -> None:
    for arguments, message in (
        ((tiny_adaptive.path,), "of the shipped photographs would mean nothing"),
        ((demo_workspace / PRUNED, "--mass", "0.9"), "are for adaptive artifacts, and none of these is"),
    ):
        done = sait("bench", *QUICK, *arguments)
        error, hint = done.err.splitlines()
        assert (done.code, done.out) == (2, "")
        assert error.startswith("error: ") and message in error and hint.startswith("hint: ")


def test_without_accuracy_nothing_says_how_often_it_is_right(quick: Sait, demo_workspace: Path) -> None:
    done = quick(demo_workspace / PRUNED, "--no-accuracy")
    assert done.code == 0, done.err
    assert "speed-up" in done.out and "top-1" not in done.out and "accuracy" not in done.err


def test_images_without_classes_give_agreement_with_dense(quick: Sait, demo_workspace: Path, digits: Path) -> None:
    done = quick(demo_workspace / PRUNED, "--images", digits / "3", "-o", "r.json")
    assert done.code == 0, done.err
    assert f"- accuracy on 1 images: {digits / '3'}" in done.err.splitlines()
    dense, pruned = (variant.accuracy for variant in from_json(Path("r.json").read_text()).variants)
    assert dense is not None and pruned is not None
    assert dense.measure is pruned.measure is AccuracyMeasure.AGREEMENT and dense.percent == 100
    assert "agrees" in done.out


def test_folders_that_are_not_the_model_s_classes_are_said_to_be_unlabelled(
    quick: Sait, demo_workspace: Path, digits: Path, tmp_path: Path
) -> None:
    for name in ("three", "seven"):
        shutil.copytree(digits / "3", tmp_path / "words" / name)
    done = quick(demo_workspace / PRUNED, "--images", tmp_path / "words")
    assert done.code == 0
    assert "unlabelled: its 2 subfolders are not the model's 10 classes" in done.err
    assert "agrees" in done.out


def test_images_that_are_none(sait: Sait, demo_workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = sait("bench", demo_workspace / PRUNED, "--images", "empty")
    assert (done.code, done.out) == (8, "")
    assert "folder empty holds no image" in done.err


def test_nothing_exported_yet_and_nothing_there(sait: Sait) -> None:
    done = sait("bench")
    assert (done.code, done.out) == (5, "")
    assert done.err.splitlines() == [
        "error: nothing was exported to artifacts yet",
        "hint: run: sait-deploy export",
    ]
    done = sait("bench", "nowhere")
    assert (done.code, done.out) == (5, "")
    assert "artifact nowhere does not exist" in done.err


def test_a_baseline_that_is_gone(sait: Sait, workspace: Path) -> None:
    shutil.rmtree(workspace / DENSE)
    done = sait("bench", workspace / PRUNED)
    assert (done.code, done.out) == (5, "")
    assert "is not beside it" in done.err
    assert "--dense" in done.err


@pytest.mark.parametrize("name", [DENSE, PRUNED])
def test_a_tampered_artifact_is_not_run(sait: Sait, workspace: Path, name: str) -> None:
    file = workspace / name / MODEL_FILE
    file.write_bytes(file.read_bytes() + b"x")
    done = sait("bench", workspace / PRUNED)
    assert (done.code, done.out) == (5, "")
    assert str(file) in done.err


def test_random_weights_are_warned_of_and_have_no_accuracy(quick: Sait, workspace: Path) -> None:
    for name in (DENSE, PRUNED):
        manifest = workspace / name / MANIFEST_FILE
        manifest.write_text(manifest.read_text().replace('"source": "demo"', '"source": "random"'))
    done = quick(workspace / PRUNED, "-o", "r.json")
    assert done.code == 0, done.err
    assert "warning: random weights: the answers mean nothing, only the speed does" in done.err.splitlines()
    assert "accuracy on" not in done.err
    variants = from_json(Path("r.json").read_text()).variants
    assert [(variant.random_weights, variant.accuracy) for variant in variants] == [(True, None)] * 2


def test_warnings_are_on_stderr_only(process: Sait, demo_workspace: Path, digits: Path) -> None:
    done = process("bench", *QUICK, "--batch", "1", "--images", digits, demo_workspace / PRUNED)
    assert done.code == 0, done.err
    assert "warning" not in done.out.lower()
    assert all(line.startswith(("- ", "warning: ")) for line in done.err.splitlines())
