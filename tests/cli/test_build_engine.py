"""``sait-deploy build-engine``: what it builds and prints, what it refuses, and that it can be stopped."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import MANIFEST_FILE, Artifact, Workspace, open_artifact
from sait_deploy.engine.folder import engine_folders, open_engine
from sait_deploy.engine.options import TARGETS
from tests.cli.calls import Outcome, Sait, child_environment
from tests.engine.cases import builder_version, files_of, gone, marked
from tests.exported import TinyExport

DENSE, PRUNED = "sait_demo_digits-dense", "sait_demo_digits-density0.6"
ONE = ("--target", "sm89")


@pytest.fixture(autouse=True)
def version() -> str:
    return builder_version()


@pytest.fixture
def artifacts(demo_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the demonstration's artifacts where the command looks for them."""
    return Path(shutil.copytree(demo_workspace, tmp_path / "artifacts"))


@pytest.fixture
def small(tiny: TinyExport, tmp_path: Path) -> Path:
    """A copy of a small dense artifact."""
    return Path(shutil.copytree(tiny.dense.path, tmp_path / "small"))


def built(artifact: Path) -> list[str]:
    opened = open_artifact(artifact)
    return [open_engine(opened, folder).manifest.name for folder in engine_folders(opened)]


def test_with_no_argument_the_last_export_is_built_with_its_baseline(sait: Sait, artifacts: Path, version: str) -> None:
    done = sait("build-engine")
    assert done.code == 0, done.err
    name = f"tensorrt-rtx-{version}-sm86+sm89+sm120-fp16"
    assert built(artifacts / DENSE) == built(artifacts / PRUNED) == [name]
    heading, *rows = done.out.splitlines()
    assert heading.split()[:3] == ["artifact", "engine", "part"]
    found = [row.split() for row in rows]
    assert [row[:3] for row in found] == [[DENSE, name, "model"], [PRUNED, name, "model"]]
    assert [row[-1] for row in found] == ["float16", "float16"]
    depth = open_artifact(artifacts / DENSE).manifest.model.geometry.depth
    assert [row[-2] for row in found] == [str(depth), str(depth - 1)]
    said = done.err.splitlines()
    assert f"- {DENSE}: model" in said and f"- {PRUNED}: model" in said
    assert f"- wrote {Path('artifacts') / DENSE / 'engines' / name}" in said
    assert not [line for line in said if not line.startswith(("- ", "warning: "))]


def test_json_is_all_of_stdout_and_says_what_the_manifest_says(sait: Sait, small: Path, version: str) -> None:
    done = sait(
        "build-engine", small, "--target", "sm89, SM86,sm89", "--json", "--batch", "2:4:8", "--precision", "bf16"
    )
    assert done.code == 0, done.err
    (engine,) = json.loads(done.out)
    folder = Path(engine["path"])
    assert folder == small / "engines" / f"tensorrt-rtx-{version}-sm86+sm89-bf16"
    assert engine["manifest"] == json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    assert engine["manifest"]["batch"] == {"smallest": 2, "optimum": 4, "largest": 8}
    (command,) = engine["trtexec"]
    assert shlex.split(command)[1:] == [f"--loadEngine={folder / 'model.plan'}", "--shapes=images:4x3x96x96"]


def test_commands_for_trtexec_are_whole_lines_of_a_shell(sait: Sait, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny_adaptive.path, tmp_path / "an adaptive one"))
    done = sait("build-engine", place, *ONE, "--print-trtexec")
    assert done.code == 0, done.err
    commands = [shlex.split(line) for line in done.out.splitlines() if line.startswith("tensorrt_rtx ")]
    (engine,) = (place / "engines").iterdir()
    plans = [engine / "stem.plan", engine / "trunk.plan"]
    assert [words[1] for words in commands] == [f"--loadEngine={plan}" for plan in plans]
    stem, trunk = (dict(part.split(":") for part in words[2].partition("=")[2].split(",")) for words in commands)
    assert stem == {"images": "8x3x96x96", "mass": "8", "keep_limits": "8x2"}
    assert {"tokens", "cu_seqlens", "kept", "lanes"} <= trunk.keys()
    assert "stem" in done.out and "trunk" in done.out


def test_run_twice(sait: Sait, small: Path) -> None:
    """The second engine takes the place of the first."""
    first = sait("build-engine", small, *ONE)
    (name,) = built(small)
    again = sait("build-engine", small, *ONE, "--batch", "1:1:1")
    assert (first.code, again.code) == (0, 0), again.err
    assert built(small) == [name]
    assert json.loads((small / "engines" / name / MANIFEST_FILE).read_text())["batch"]["largest"] == 1
    assert [path.name for path in (small / "engines").iterdir()] == [name]


def test_from_another_folder(sait: Sait, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that is looked in is that of the last export."""
    Workspace(tmp_path).record_last_export([small])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sait("build-engine", *ONE).code == 5
    done = sait("build-engine", "--workspace", "..", *ONE)
    assert done.code == 0, done.err
    assert len(built(small)) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


def test_unfused_attention_is_said(sait: Sait, small: Path) -> None:
    done = sait("build-engine", small, *ONE, "--allow-unfused")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert line == "warning: small: attention is matrix products and softmax (--allow-unfused)"


REFUSED = [
    (["--target", "sm90"], 2, "unknown target 'sm90'"),
    (["--batch", "8:1:32"], 2, "batch 8:1:32 is out of order"),
    (["--batch", "1:8:2147483647"], 2, "more tokens than int32 counts"),
    (["--builder-workspace", "0"], 2, "a workspace of 0 GiB"),
    (["--opt-level", "6"], 2, "optimisation level 6"),
    (["--version-compatible"], 2, "--version-compatible is TensorRT's"),
    (["--hardware-compatible"], 2, "--hardware-compatible is TensorRT's"),
    (["--timing-cache", "cache"], 2, "--timing-cache is TensorRT's"),
    (["--builder", "tensorrt", "--target", "sm86"], 2, "not for --target"),
    (["--target", "sm75", "--precision", "fp32"], 2, "TensorRT for RTX has no fp32 for sm75"),
    (["--attention", "packed"], 2, "no kernel for attention on packed rows"),
    (["--attention", "packed", "--allow-unfused"], 2, "--allow-unfused asks for none"),
    (["--print-trtexec", "--strip-weights"], 2, "trtexec puts no weights into an engine"),
    (["--builder-workspace", "0.000000001"], 11, "no kernel fits within the limits given"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_bad_input_gets_one_line_and_a_hint_and_changes_nothing(
    sait: Sait, small: Path, arguments: list[str], code: int, message: str
) -> None:
    before = files_of(small)
    done = sait("build-engine", small, *arguments)
    assert (done.code, done.out) == (code, "")
    error, hint = [line for line in done.err.splitlines() if not line.startswith("- ")]
    assert error.startswith("error: ") and message in error
    assert hint.startswith("hint: ") and len(hint) > len("hint: ")
    assert files_of(small) == before


USAGE = [
    (["--precision", "int8"], "'int8' is not one of"),
    (["--builder", "openvino"], "'openvino' is not one of"),
    (["--builder-workspace", "much"], "'much' is not a valid float"),
    (["--attention", "ragged"], "'ragged' is not one of"),
    (["--opt-level", "2.5"], "'2.5' is not a valid integer"),
    (["--targets", "sm86"], "--target"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=lambda value: str(value)[:60])
def test_what_is_no_option_or_value_is_told_by_click(
    sait: Sait, small: Path, arguments: list[str], message: str
) -> None:
    before = files_of(small)
    done = sait("build-engine", small, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and "Traceback" not in done.err
    assert files_of(small) == before


def test_there_is_nothing_to_build(sait: Sait, small: Path) -> None:
    """Nothing exported, no such artifact, one that is damaged; in a list of several nothing is built at all."""
    for arguments in ([], ["nowhere"], ["nowhere", small], [small, "nowhere"]):
        done = sait("build-engine", *arguments, *ONE)
        assert (done.code, done.out) == (5, "")
        error, hint = done.err.splitlines()
        assert (error.startswith("error: ") and hint == "hint: make one with: sait-deploy export") or "export" in hint
        assert not (small / "engines").exists()
    (small / "model.onnx").write_bytes(b"")
    done = sait("build-engine", small, *ONE)
    assert (done.code, done.out) == (5, "")
    assert "model.onnx is empty" in done.err


def test_no_builder_is_installed(process: Sait, small: Path, tmp_path: Path) -> None:
    """A folder before the installed packages stands for an environment without them."""
    (tmp_path / "site").mkdir()
    blocked = "{'tensorrt', 'tensorrt_rtx'}"
    (tmp_path / "site" / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n", encoding="utf-8"
    )
    before = files_of(small)
    for builder in ("auto", "tensorrt-rtx"):
        done = process("build-engine", small, "--builder", builder, PYTHONPATH=str(tmp_path / "site"))
        assert (done.code, done.out) == (3, "")
        error, hint = "error: tensorrt_rtx is not installed", "hint: pip install 'sait-deploy[rtx]'"
        assert done.err.splitlines() == [error, hint]
    assert files_of(small) == before


def interrupted(command: list[str], folder: Path, mark: str, line: str) -> tuple[Outcome, float]:
    """Interrupts the command line as soon as it has said that, as a terminal does; returns how long it took."""
    with subprocess.Popen(
        [sys.executable, "-m", "sait_deploy", *command],
        cwd=folder,
        env=child_environment(SAIT_TEST=mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        assert child.stderr is not None and child.stdout is not None
        said = []
        for found in child.stderr:
            said.append(found)
            if found == f"{line}\n":
                break
        assert marked("SAIT_TEST", mark), "nothing builds"
        started = time.monotonic()
        os.killpg(child.pid, signal.SIGINT)
        said += child.stderr
        out = child.stdout.read()
        child.wait(30)
    return Outcome(child.returncode, out, "".join(said)), time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize("earlier", ["none", "an earlier engine"])
def test_ctrl_c_stops_a_build_and_leaves_the_artifact_as_it_was(
    sait: Sait, tiny_adaptive: Artifact, tmp_path: Path, earlier: str
) -> None:
    """Of the engines that take longest."""
    place = Path(shutil.copytree(tiny_adaptive.path, tmp_path / "copied"))
    options = ["build-engine", str(place), "--target", ",".join(TARGETS[1:]), "--precision", "fp32"]
    if earlier == "an earlier engine":
        done = sait(*options)
        assert done.code == 0, done.err
        assert "attention is matrix products and softmax (fp32 has no fused attention)" in done.err
    before = files_of(place)
    mark = tmp_path.as_posix()
    done, seconds = interrupted(options, tmp_path, mark, "- copied: stem")
    assert (done.code, done.out) == (130, "")
    assert seconds < 5
    assert done.err.splitlines()[-1] == "interrupted: nothing half-written was left"
    assert "Traceback" not in done.err
    assert gone("SAIT_TEST", mark)
    assert files_of(place) == before


def test_a_failure_keeps_the_engines_built_before_it(sait: Sait, small: Path, tiny: TinyExport, tmp_path: Path) -> None:
    """Of two artifacts the second cannot be built: the first engine is whole, and stays."""
    second = Path(shutil.copytree(tiny.half.path, tmp_path / "second"))
    (second / "engines").write_text("in the way")
    done = sait("build-engine", small, second, *ONE)
    assert (done.code, done.out) == (9, "")
    assert len(built(small)) == 1
    assert (second / "engines").read_text() == "in the way"
