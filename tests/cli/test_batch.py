"""``sait-deploy batch``: what cannot be a job is refused in one line, before Ray starts and with nothing written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from tests.cli.calls import Outcome, Sait, child_environment
from tests.exported import TinyExport, copied
from tests.test_imports import BLOCKED

pyarrow: Any = pytest.importorskip("pyarrow", reason="jobs need Ray Data, which brings pyarrow and has no wheel here")


def refused(outcome: Outcome, code: int, what: str, hint: str, output: Path | None = None) -> None:
    error, told = [line for line in outcome.err.splitlines() if not line.startswith("- ")]
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert error.startswith("error: ") and re.search(what, error), error
    assert told.startswith("hint: ") and re.search(hint, told), told
    assert output is None or not output.exists(), "something was written"


@pytest.fixture
def batch(sait: Sait, tiny_adaptive: Artifact) -> Sait:
    def call(*arguments: object) -> Outcome:
        return sait("batch", *arguments, "--artifact", tiny_adaptive.path, "--threads", "1")

    return call


def test_inputs_that_cannot_be_say_why(batch: Sait, tmp_path: Path) -> None:
    from pyarrow import parquet

    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    parquet.write_table(pyarrow.table({"url": ["x"]}), tmp_path / "urls.parquet")
    refused(batch(tmp_path / "empty", "-o", out), 8, "holds no image", "looked for", out)
    refused(batch(tmp_path / "none", "-o", out), 8, "there is no image or folder", "check the path", out)
    refused(batch(tmp_path / "urls.parquet", "-o", out), 2, r"no column of images: it has url", "columns of bytes", out)
    refused(batch("nosuchscheme://bucket", "-o", out), 2, "cannot be opened", "fsspec", out)
    refused(
        batch(demo.IMAGES, "-o", out, "--image-column", "image"), 2, "which have no column image", "leave it out", out
    )
    inside = tmp_path / "images" / "out"
    (tmp_path / "images").mkdir()
    refused(batch(tmp_path / "images", "-o", inside), 2, "lies in .*images", "beside it", inside)


def test_outputs_that_cannot_be_say_why(batch: Sait, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("mine")
    refused(batch(demo.IMAGES, "-o", tmp_path / "out"), 9, "holds no job, but notes", "new, empty")
    refused(batch(demo.IMAGES, "-o", tmp_path / "out" / "notes"), 9, "notes is a file$", "new, empty")
    assert (tmp_path / "out" / "notes").read_text() == "mine"
    refused(batch(demo.IMAGES, "-o", "http://127.0.0.1:9/out"), 9, "files there can only be read", "another place")


def test_what_an_artifact_does_not_allow_says_why(
    sait: Sait, batch: Sait, tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    refused(batch(demo.IMAGES, "-o", out, "--point", "fats"), 2, "no point 'fats'", "mass0.6, fast, wide", out)
    refused(batch(demo.IMAGES, "-o", out, "--mass", "x"), 2, "mass 'x' is not a number", "such as 0.95", out)
    refused(batch(demo.IMAGES, "-o", out, "--replicas", "0"), 2, "0 replicas", "1 to 1000", out)
    refused(batch(demo.IMAGES, "-o", out, "--runtime", "onnx"), 2, "unknown runtime 'onnx'", "onnxruntime", out)
    fixed = sait("batch", demo.IMAGES, "-o", out, "--artifact", tiny.half.path, "--point", "fast")
    refused(fixed, 2, "operating point is fixed", "--mass", out)
    refused(sait("batch", demo.IMAGES, "-o", out, "--artifact", tmp_path / "no"), 5, "does not exist", "export", out)
    damaged = copied(tiny_adaptive, tmp_path)
    damaged.model_path.write_bytes(damaged.model_path.read_bytes()[:-9])
    refused(sait("batch", demo.IMAGES, "-o", out, "--artifact", damaged.path), 5, "SHA-256", "export again", out)
    usage = sait("batch", demo.IMAGES)
    assert usage.code == 2 and "--output" in usage.err


def test_without_ray_it_says_how_to_get_it(tiny: TinyExport, tmp_path: Path) -> None:
    code = BLOCKED.replace('{"torch"', '{"ray", "torch"') + "\nfrom sait_deploy.cli import run\nrun()"
    arguments = ["batch", str(demo.IMAGES), "-o", str(tmp_path / "out"), "--artifact", str(tiny.dense.path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    refused(outcome, 3, r"a batch job needs ray\[data\]", r"sait-deploy\[serve\]", tmp_path / "out")
