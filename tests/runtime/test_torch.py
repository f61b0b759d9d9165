"""The torch runtime: its device, and the weights that it proves to be the artifact's."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import ArtifactError, InvalidArgument, ModelError, RuntimeUnavailable
from sait_deploy.models.pruning import FixedPruning
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.torch import ModelInMemory, TorchRunner
from tests.cli.calls import child_environment
from tests.exported import TinyExport
from tests.runtime.cases import GOOD, ONE_THREAD
from tests.tiny import family, save_weights


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "meta", "nonsense"])
def test_a_torch_device_that_is_not_there(tiny: TinyExport, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(RuntimeUnavailable, match="torch cannot use device") as caught:
        load(tiny.half, "torch", RunOptions(threads=1, device=device))
    assert repr(device) in caught.value.message
    assert "\n" not in caught.value.message


_FORKED = """
import os, sys, numpy
from sait_deploy import RunOptions, load
from sait_deploy.errors import RuntimeUnavailable

artifact, images = sys.argv[1], numpy.zeros((2, 3, 96, 96), numpy.float32)
runner = load(artifact, "torch", RunOptions(threads=2))
if os.fork() == 0:
    for refused in (lambda: runner.run(images), lambda: runner.bind(images), lambda: load(artifact, "torch")):
        try:
            refused()
        except RuntimeUnavailable as error:
            print(error.message)
    print(load(artifact, "torch", RunOptions(threads=1)).run(images).logits.shape)
    sys.stdout.flush()
    os._exit(0)
_, status = os.wait()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_process_forked_after_torch_computed_is_refused_but_with_one_thread(tiny: TinyExport) -> None:
    """It would wait for ever for threads that only its parent has."""
    command = [sys.executable, "-c", _FORKED, str(tiny.dense.path)]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *refusals, answered = done.stdout.splitlines()
    assert len(refusals) == 3 and all("forked" in line for line in refusals)
    assert answered == f"(2, {tiny.dense.manifest.model.classes})"


@pytest.mark.parametrize("device", ["", " "])
def test_a_device_without_a_name(device: str) -> None:
    with pytest.raises(InvalidArgument, match="a device without a name"):
        RunOptions(device=device)


def test_torch_refuses_other_weights(tiny: TinyExport, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny.weights)
    tensors["head.bias"][0] += 1e-3
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="are not those of") as caught:
        load(tiny.half, "torch", RunOptions(threads=1, weights=tmp_path / "other.safetensors"))
    assert tiny.half.manifest.weights.sha256[:12] in caught.value.message


def test_torch_takes_the_same_weights_from_another_place(tiny: TinyExport, tmp_path: Path) -> None:
    moved = Path(shutil.copy(tiny.weights, tmp_path / "moved.safetensors"))
    gone = dataclasses.replace(tiny.half.manifest.weights, origin=str(tmp_path / "gone.safetensors"))
    artifact = dataclasses.replace(tiny.half, manifest=dataclasses.replace(tiny.half.manifest, weights=gone))
    with pytest.raises(ModelError, match=r"gone\.safetensors does not exist"):
        load(artifact, "torch", ONE_THREAD)
    found = load(artifact, "torch", RunOptions(threads=1, weights=moved)).run(GOOD)
    np.testing.assert_array_equal(found.logits, load(tiny.half, "torch", ONE_THREAD).run(GOOD).logits)


def test_relative_weights_are_found_from_the_artifacts_place(
    tiny: TinyExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = dataclasses.replace(tiny.half.manifest.weights, origin="trained/w.safetensors")
    manifest = dataclasses.replace(tiny.half.manifest, weights=origin)
    artifact = Artifact(tmp_path / "project" / "artifacts" / "half", manifest)
    shutil.copytree(tiny.half.path, artifact.path)
    for folder in ("elsewhere", "project"):
        (tmp_path / folder / "trained").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"trained/w\.safetensors does not exist"):
        load(artifact, "torch", ONE_THREAD)
    shutil.copy(tiny.weights, tmp_path / "project" / "trained" / "w.safetensors")
    expected = load(tiny.half, "torch", ONE_THREAD).run(GOOD)
    np.testing.assert_array_equal(load(artifact, "torch", ONE_THREAD).run(GOOD).logits, expected.logits)
    # A file of the same name in the working directory is not taken for it.
    save_weights(family("vit"), tmp_path / "elsewhere" / "trained" / "w.safetensors")
    np.testing.assert_array_equal(load(artifact, "torch", ONE_THREAD).run(GOOD).logits, expected.logits)
    (tmp_path / "project" / "trained" / "w.safetensors").unlink()
    with pytest.raises(ModelError, match="do not fit"):
        load(artifact, "torch", ONE_THREAD)


def test_torch_refuses_weights_of_another_architecture(tiny: TinyExport, tmp_path: Path) -> None:
    path = save_weights(family("vit"), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="do not fit"):
        load(tiny.half, "torch", RunOptions(threads=1, weights=path))


def test_torch_cannot_rebuild_a_model_from_memory(tiny: TinyExport) -> None:
    weights = dataclasses.replace(tiny.half.manifest.weights, source=WeightsSource.MEMORY, origin=None)
    artifact = Artifact(tiny.half.path, dataclasses.replace(tiny.half.manifest, weights=weights))
    with pytest.raises(ModelError, match="in memory"):
        load(artifact, "torch", ONE_THREAD)


def test_torch_leaves_no_gradient(tiny: TinyExport) -> None:
    runner = load(tiny.half, "torch", ONE_THREAD)
    runner.run(GOOD)
    runner.bind(GOOD)()
    model = runner._model  # type: ignore[attr-defined]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_in_memory_runs_as_its_artifact_does(tiny: TinyExport) -> None:
    pruning = tiny.half.manifest.pruning
    assert pruning is not None
    in_memory = ModelInMemory(tiny.model, FixedPruning(pruning.score, pruning.prune_at, 18))
    runner, artifact = TorchRunner(in_memory, ONE_THREAD), load(tiny.half, "torch", ONE_THREAD)
    found, wanted = runner.run(GOOD), artifact.run(GOOD)
    np.testing.assert_array_equal(found.logits, wanted.logits)
    np.testing.assert_array_equal(found.kept, wanted.kept)
    np.testing.assert_array_equal(runner.importance(GOOD), artifact.select(GOOD).importance)
    with pytest.raises(InvalidArgument, match="runs from memory and has no artifact"):
        _ = runner.artifact


def test_kept_tokens_can_be_given(tiny: TinyExport) -> None:
    runner = load(tiny.half, "torch", ONE_THREAD)
    assert isinstance(runner, TorchRunner)
    selection = runner.select(GOOD)
    np.testing.assert_array_equal(runner.run_keeping(GOOD, selection.keep).logits, selection.logits)
    with pytest.raises(InvalidArgument, match="keep has not 19 tokens in every image"):
        runner.run_keeping(GOOD, np.ones_like(selection.keep))
