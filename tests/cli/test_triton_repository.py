"""``sait-deploy triton-repository``: what cannot be a model is refused in one line, and nothing is half-written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.folder import engine_folders
from sait_deploy.engine.options import BatchRange
from sait_deploy.engine.packages import BuilderName
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.names import SelectionForm
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from tests.cli.calls import Outcome, Sait
from tests.exported import POINTS, TinyExport
from tests.triton_repository.engines import with_engine


def refused(outcome: Outcome, code: int, what: str, hint: str) -> None:
    error, told = outcome.err.splitlines()
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert error.startswith("error: ") and re.search(what, error), error
    assert told.startswith("hint: ") and re.search(hint, told), told


def test_a_model_is_added_and_never_replaced(sait: Sait, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    done = sait("triton-repository", tiny_adaptive.path, "-o", "repository")
    assert done.code == 0 and f"model {tiny_adaptive.path.name} is in repository" in done.out
    other = sait("triton-repository", tiny_adaptive.path, "-o", "repository", "--name", "other", "--backend", "python")
    assert other.code == 0
    before = sorted((tmp_path / "repository").rglob("*"))
    again = sait("triton-repository", tiny_adaptive.path, "-o", "repository")
    refused(again, 9, "is there already", "--name")
    assert sorted((tmp_path / "repository").rglob("*")) == before


def test_what_a_kill_left_is_swept(sait: Sait, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    """Triton would take it for a model."""
    (tmp_path / "repository" / ".partial-0123" / "other").mkdir(parents=True)
    assert sait("triton-repository", tiny_adaptive.path, "-o", "repository", "--name", "tiny").code == 0
    assert [entry.name for entry in (tmp_path / "repository").iterdir()] == ["tiny"]


def test_what_cannot_be_a_model_says_why(sait: Sait, tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    adaptive, call = tiny_adaptive.path, ("triton-repository", "-o", "repository")
    refused(sait(*call, adaptive, "--backend", "tensorrt"), 5, "has no TensorRT engine$", "build-engine --builder tens")
    refused(sait(*call, adaptive, "--point", "fats"), 2, "no point 'fats'", "mass0.6, fast, wide")
    refused(sait(*call, tiny.half.path, "--point", "fast"), 2, "operating point is fixed", "--mass")
    refused(sait(*call, tmp_path / "none"), 5, "does not exist", "export")
    refused(sait(*call, adaptive, "--name", "../x"), 2, "cannot name a model", "classifier")
    refused(sait(*call, adaptive, "--name", "a\nb"), 2, "cannot name a model", "classifier")
    refused(sait(*call, adaptive, "--name", "x" * 300), 9, "File name too long", "write elsewhere")
    refused(sait(*call, adaptive, "--token-budget", "9"), 2, "makes no batches of tokens", "--backend python")
    assert not (tmp_path / "repository").exists()
    usage = sait("triton-repository", adaptive, "-o", "r", "--batch", "0")
    assert usage.code == 2


def test_inlined_and_fixed_batches_are_refused(sait: Sait, tiny: TinyExport, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    inlined = export_model(tiny.model, ExportOptions(points=POINTS, output=output, operators=OperatorForm.INLINE))[-1]
    fixed = export_model(tiny.model, ExportOptions(output=output, batch=2))[-1]
    call = ("triton-repository", "-o", "repository")
    refused(sait(*call, inlined.path, "--backend", "tensorrt"), 2, "exported with --inline", "without --inline")
    refused(sait(*call, fixed.path), 2, "batches of 2 images, and", "without --batch")
    assert not (tmp_path / "repository").exists()
    assert sait(*call, inlined.path).code == 0, "Triton's ONNX Runtime runs it whole"


def test_engines_that_triton_cannot_load_are_refused(sait: Sait, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    def call(name: str, *further: object, **changes: object) -> Outcome:
        artifact = with_engine(tiny_adaptive, tmp_path / name, **changes)
        return sait("triton-repository", artifact.path, "-o", "repository", "--backend", "tensorrt", *further)

    refused(call("rtx", builder=BuilderName.TENSORRT_RTX), 5, "but of TensorRT for RTX", "--builder tensorrt")
    refused(call("plugin", selection=SelectionForm.PLUGIN), 2, "selects tokens with a plugin", "--no-plugin")
    refused(call("stripped", stripped=True), 2, "has no weights in it", "build another")
    refused(call("batch", "--batch", 64, batch=BatchRange(1, 8, 32)), 2, "takes 1 to 32 images, not 64", "--batch")
    assert not (tmp_path / "repository").exists()


def test_an_engine_that_others_built_takes_consent(
    sait: Sait, tiny_adaptive: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = with_engine(tiny_adaptive, tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    call = ("triton-repository", artifact.path, "-o", "repository", "--backend", "tensorrt")
    refused(sait(*call), 5, "was not built here by this user", "--trust-engine")
    assert sait(*call, "--trust-engine").code == 0


def test_a_damaged_engine_is_refused(sait: Sait, tiny_adaptive: Artifact, tmp_path: Path) -> None:
    artifact = with_engine(tiny_adaptive, tmp_path)
    (engine_folders(artifact)[0] / "trunk.plan").write_bytes(b"changed")
    outcome = sait("triton-repository", artifact.path, "-o", "repository", "--backend", "tensorrt")
    refused(outcome, 5, "SHA-256", "build it again")


def test_a_full_disk_leaves_no_model(sait: Sait, tiny_adaptive: Artifact, small_disk: Path) -> None:
    with (small_disk / "filler").open("wb") as file:
        file.write(bytes(900_000))
    outcome = sait("triton-repository", tiny_adaptive.path, "-o", small_disk / "repository")
    refused(outcome, 9, "no space left", "free some")
    assert [entry.name for entry in small_disk.iterdir()] == ["filler"]
