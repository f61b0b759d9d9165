"""The torch-cuda runtime: its steps on a processor, and, where there is a GPU, the runtime itself on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Outputs
from sait_deploy.errors import InvalidArgument, RuntimeUnavailable
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.models.flash_vit import FlashViT
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime import RunOptions, load, torch_cuda_trial
from sait_deploy.runtime.cuda_graphs import OnHost
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.torch_cuda import TorchCudaRunner
from sait_deploy.runtime.torch_cuda_batch import BatchWork, CompiledParts
from sait_deploy.runtime.torch_cuda_trial import compare_with_definitions
from sait_deploy.tokens import Score
from tests.exported import TinyExport, export_tiny
from tests.runtime.cases import CHOICES, COUNT, ONE_THREAD, SHAPE
from tests.tiny import exactly, family, images_for, random_batch

ROOT = Path(__file__).parents[2]
RUNTIME = "torch-cuda"
IMAGES = random_batch((COUNT, *SHAPE), seed=5)
TOLERANCE = {RunPrecision.BF16: 6e-2, RunPrecision.FP16: 1e-2}
"""Largest difference from float32's logits, relative to the largest of them."""

every_precision = pytest.mark.parametrize("precision", list(TOLERANCE))


def on_host(artifact: Artifact, precision: RunPrecision | None = None) -> TorchCudaRunner:
    """The runtime's own steps, on a processor."""
    return TorchCudaRunner(artifact, RunOptions(precision=precision), OnHost)


def assert_answers_as_float32(runner: TorchCudaRunner, artifact: Artifact, **choice: Any) -> None:
    """Selects what the reference selects of its own importance, and answers as torch forced to keep the same tokens."""
    reference = load(artifact, "torch", ONE_THREAD)
    if artifact.manifest.pruning is None:
        wanted, found = reference.run(IMAGES).logits, runner.run(IMAGES).logits
    else:
        selection = runner.select(IMAGES, **choice)
        wanted, found = reference.run_keeping(IMAGES, selection.keep).logits, selection.logits  # type: ignore[attr-defined]
        np.testing.assert_allclose(selection.importance.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(runner.run(IMAGES, **choice).kept, selection.keep.sum(axis=1) - 1)
    assert np.abs(found - wanted).max() <= TOLERANCE[RunPrecision(runner.precision)] * np.abs(wanted).max()


@every_precision
def test_every_form_answers_as_float32(tiny: TinyExport, tiny_adaptive: Artifact, precision: RunPrecision) -> None:
    for artifact in (tiny.dense, tiny.half, tiny_adaptive):
        runner = on_host(artifact, precision)
        assert runner.precision == precision.value
        assert_answers_as_float32(runner, artifact)


@pytest.fixture(scope="module")
def adaptive(tiny_adaptive: Artifact) -> TorchCudaRunner:
    return on_host(tiny_adaptive)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_each_image_keeps_what_the_reference_keeps(adaptive: TorchCudaRunner, choice: dict[str, Any]) -> None:
    runner = adaptive
    selection = runner.select(IMAGES, **choice)
    work = runner._work[COUNT]
    mass, limits = work._mass.numpy(), work._limits.numpy()
    keep, counts = mass_token_select(selection.importance, mass, limits, 1)
    np.testing.assert_array_equal(selection.keep, keep)
    np.testing.assert_array_equal(runner.run(IMAGES, **choice).kept, counts - 1)


def test_an_artifact_runs_in_its_own_half_precision_unless_another_is_asked_for(
    tiny: TinyExport, tiny_fp16: TinyExport
) -> None:
    assert on_host(tiny.half).precision == "bf16"
    assert on_host(tiny_fp16.half).precision == "fp16"
    assert on_host(tiny_fp16.half, RunPrecision.BF16).precision == "bf16"


def test_answers_stay_when_another_batch_runs(adaptive: TorchCudaRunner) -> None:
    """Work writes into the same memory every time; what a caller was given is a copy."""
    runner = adaptive
    first = runner.run(IMAGES)
    logits, kept = first.logits.copy(), first.kept.copy()
    runner.run(IMAGES[::-1].copy(), mass=0.9)
    np.testing.assert_array_equal(first.logits, logits)
    np.testing.assert_array_equal(first.kept, kept)
    np.testing.assert_array_equal(runner.run(IMAGES).logits, logits)


def test_bound_batches_of_one_size_do_not_run_each_others_images(tiny_adaptive: Artifact) -> None:
    runner = on_host(tiny_adaptive)
    wanted = [runner.run(batch).logits for batch in (IMAGES, IMAGES[::-1].copy())]
    calls = [runner.bind(batch) for batch in (IMAGES, IMAGES[::-1].copy())]
    for turn in (0, 1, 0):
        assert calls[turn]() is None
        trunk = list(runner._work[COUNT]._trunks.values())
        assert any(np.array_equal(one.outputs.numpy(), wanted[turn]) for one in trunk)


def test_a_bucket_is_recorded_once_and_serves_every_batch_that_falls_into_it() -> None:
    """Whatever ran before: rows of the last batch that are left in memory change nothing."""
    vit = FlashViT(family("deit"), AdaptivePruning(Score.MEAN, 1), torch.float32)
    execution, images = OnHost(), images_for(family("deit"), count=4)
    parts = CompiledParts(vit, execution, (3, 64, 64))
    work = BatchWork(parts, execution, images.shape)
    mass, found = torch.ones(4), []
    for counts in ([16] * 4, [1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 1, 1], [16] * 4):
        work.load(images, mass, exactly(counts))
        traced = work.run()
        found.append(traced.logits.clone())
        assert traced.counts is not None
        assert traced.counts.tolist() == [1 + count for count in counts]
        fresh = BatchWork(parts, execution, images.shape)
        fresh.load(images, mass, exactly(counts))
        torch.testing.assert_close(traced.logits, fresh.run().logits)
    assert torch.equal(found[0], found[-1])
    # 14 and 14 tokens share one; 68 and 8 have their own.
    assert work.buckets == (68, 16, 8)


def test_an_artifact_with_features_is_refused(tmp_path: Path) -> None:
    features = export_tiny(tmp_path, ExportOptions(outputs=Outputs.LOGITS_AND_FEATURES))
    with pytest.raises(InvalidArgument, match="torch-cuda returns no features") as raised:
        on_host(features.half)
    assert "torch" in raised.value.hint


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "attention": ("flash_uniform", lambda found: (found[0] * 1.1, found[1])),
    "log-sum-exp": ("flash_uniform", lambda found: (found[0], found[1] + 0.2)),
    "column sums": ("attention_column_sums", lambda found: found.roll(1, dims=2)),
    "the selection": ("mass_token_select", lambda found: (found[0].flip(1), found[1])),
    "packed attention": ("flash_packed", lambda found: found.roll(1, dims=0)),
}
"""What doctor says is wrong: the operator, and an answer of its that a device may give."""


def test_operators_that_compute_their_definitions_are_right() -> None:
    compare_with_definitions(torch.device("cpu"))


@pytest.mark.parametrize("what", WRONG)
def test_an_operator_that_computes_something_else_is_named(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the device computes, in half precision, is wrong; the definition beside it, in float32, is right."""
    name, spoilt = WRONG[what]
    right = getattr(torch_cuda_trial, name)

    def on_device(first: torch.Tensor, *others: Any) -> Any:
        exact = name != "mass_token_select" and first.dtype == torch.float32
        return right(first, *others) if exact else spoilt(right(first, *others))

    monkeypatch.setattr(torch_cuda_trial, name, on_device)
    with pytest.raises(RuntimeError, match=f"^{what} differs from "):
        compare_with_definitions(torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_clear_line(tiny: TinyExport) -> None:
    with pytest.raises(RuntimeUnavailable, match="torch-cuda needs an NVIDIA GPU, and torch") as raised:
        load(tiny.half, RUNTIME)
    assert "--runtime torch" in raised.value.hint
    artifact, pixels = str(tiny.half.path), str(next((ROOT / "sait_deploy/demo/images").rglob("*.png")))
    command = [sys.executable, "-m", "sait_deploy", "predict", pixels, "--artifact", artifact, "--runtime", RUNTIME]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == raised.value.exit_code
    assert done.stderr.splitlines() == [f"error: {raised.value.message}", f"hint: {raised.value.hint}"]


def test_a_gpu_that_is_said_to_be_needed_makes_its_absence_a_failure() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(__file__), "-k", "on_a_gpu"]
    for needed, says in (("1", "1 is 1"), ("", "skipped")):
        environment = {**os.environ, "SAIT_DEPLOY_TESTS_NEED_GPU": needed}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (not needed), says


def test_the_operators_on_a_gpu(gpu: torch.device) -> None:
    compare_with_definitions(gpu)


@every_precision
def test_every_form_on_a_gpu(
    gpu: torch.device, tiny: TinyExport, tiny_adaptive: Artifact, precision: RunPrecision
) -> None:
    for artifact in (tiny.dense, tiny.half, tiny_adaptive):
        runner = load(artifact, RUNTIME, RunOptions(precision=precision))
        assert isinstance(runner, TorchCudaRunner)
        assert runner.environment["attention"].startswith("FLASH")
        assert_answers_as_float32(runner, artifact)
        seconds = runner.bind(IMAGES)()
        assert seconds is not None and seconds > 0


def test_a_million_rows_are_selected_as_the_reference_selects_them(gpu: torch.device) -> None:
    from sait_deploy.plugins.mass_token_select.torch_op import mass_token_select as operator

    draw = np.random.default_rng(0)
    for _ in range(10):
        scores = draw.exponential(size=(100_000, 196)).astype(np.float32).round(1)
        importance = (scores / scores.sum(axis=1, keepdims=True).clip(1e-6)).astype(np.float32)
        mass = draw.uniform(0, 1.2, 100_000).astype(np.float32)
        limits = np.sort(draw.integers(1, 197, (100_000, 2)), axis=1).astype(np.int32)
        given = (torch.from_numpy(array).to(gpu) for array in (importance, mass, limits))
        keep, counts = operator(*given, 1)
        wanted, wanted_counts = mass_token_select(importance, mass, limits, 1)
        np.testing.assert_array_equal(keep.cpu().numpy(), wanted)
        np.testing.assert_array_equal(counts.cpu().numpy(), wanted_counts)
