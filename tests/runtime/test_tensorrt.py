"""Engines of either TensorRT: what they answer on a GPU, and the same tests on a stand-in for it.

The stand-in replaces what cannot run without one, TensorRT itself. Options, lowering, manifest, weights, the seam and
these very tests run on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import GOLDEN_FILE, Artifact
from sait_deploy.artifacts.golden import read_golden
from sait_deploy.artifacts.manifest import Form
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.cuda import device
from sait_deploy.engine.folder import Engine
from sait_deploy.engine.options import PluginChoice
from sait_deploy.engine.packages import BuilderName
from sait_deploy.errors import ArtifactError, InvalidArgument
from sait_deploy.exporters.names import AttentionForm, SelectionForm
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime import Runner, load
from tests.exported import TinyExport
from tests.runtime.cases import ONE_THREAD, SHAPE
from tests.runtime.engine_cases import BATCH, CASES, EngineCase, needs_gpu
from tests.runtime.host_builder import build_on_host, load_on_host
from tests.tiny import random_batch

IMAGES = random_batch((BATCH.largest, *SHAPE), seed=5)
PREFIX = 1
TOLERANCE = 3e-2
"""Largest difference from fp32 logits, relative to the largest of them or 1, in half precision."""

GPU, STAND_IN = "gpu", "stand-in"
CHOICES: list[dict[str, Any]] = [
    {},
    {"point": "fast"},
    {"point": "wide"},
    {"mass": [0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0]},
    {"mass": 0.3, "min_keep": [1, 3, 5, 36, 9, 11, 2, 7], "max_keep": [2, 3, 6, 36, 12, 11, 36, 20]},
    {"mass": 1},
    {"mass": 0, "max_keep": 1},
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> EngineCase:
    """The engine that is tested."""
    found: EngineCase = request.param
    return found


@pytest.fixture(scope="module")
def artifact(case: EngineCase, tiny: TinyExport, tiny_adaptive: Artifact) -> Artifact:
    """The small model in the engine's form."""
    return {"dense": tiny.dense, "density": tiny.half, "adaptive": tiny_adaptive}[case.form]


@pytest.fixture(scope="module", params=[STAND_IN, GPU])
def runner(
    request: pytest.FixtureRequest, case: EngineCase, artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runner]:
    """The engine, built in a copy of its artifact: on a GPU, where there is one, and on the stand-in."""
    if request.param == GPU:
        needs_gpu(case.builder)
    folder = tmp_path_factory.mktemp("engine")
    place = Path(shutil.copytree(artifact.path, folder / artifact.path.name))
    if request.param == GPU:
        yield load(build_engine(place, case.options).artifact, case.runtime)
        return
    with pytest.MonkeyPatch.context() as patch:
        yield load_on_host(build_on_host(place, case.options), patch, folder)


def choices(artifact: Artifact) -> list[dict[str, Any]]:
    return CHOICES if artifact.manifest.form is Form.ADAPTIVE else [{}]


def part_of(choice: dict[str, Any], count: int) -> dict[str, Any]:
    """The choice for the first images of the batch."""
    return {name: value[:count] if isinstance(value, list) else value for name, value in choice.items()}


def test_a_runtime_without_an_engine_says_so(runner: Runner, case: EngineCase, artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=f"has no {case.runtime} engine") as caught:
        load(artifact, case.runtime)
    assert "build-engine" in caught.value.hint


def agrees(artifact: Artifact, first: Runner, second: Runner, choice: dict[str, Any], count: int) -> None:
    """Compares answers to the first images of the batch; those that keep other tokens, as fp16 may have it, not."""
    images, chosen = IMAGES[:count], part_of(choice, count)
    found, expected = first.run(images, **chosen), second.run(images, **chosen)
    same = np.ones(count, dtype=bool)
    if artifact.manifest.pruning is not None:
        ours, theirs = first.select(images, **chosen), second.select(images, **chosen)
        np.testing.assert_allclose(ours.importance, theirs.importance, rtol=5e-2, atol=2e-3)
        same = (ours.keep == theirs.keep).all(axis=1)
        np.testing.assert_array_equal(found.kept, ours.keep.sum(axis=1) - PREFIX)
        np.testing.assert_array_equal(found.kept[same], expected.kept[same])
    assert same.mean() >= 0.5
    scale = np.maximum(1, np.abs(expected.logits).max(axis=1, keepdims=True))
    assert (np.abs(found.logits - expected.logits) / scale)[same].max() < TOLERANCE


def test_an_engine_gives_onnxruntimes_answers(runner: Runner, artifact: Artifact) -> None:
    """At every size of a batch, at named and mixed points."""
    cpu = load(artifact, options=ONE_THREAD)
    for count in (2, 3, 4, 8):
        for choice in choices(artifact):
            agrees(artifact, runner, cpu, choice, count)


def test_an_engine_selects_bit_for_bit_as_defined(runner: Runner, artifact: Artifact) -> None:
    pruning = artifact.manifest.pruning
    if pruning is None:
        pytest.skip("a dense artifact selects nothing")
    for choice in choices(artifact):
        selection = runner.select(IMAGES, **choice)
        point = resolve(artifact.manifest, len(IMAGES), PointChoice(**choice))
        mass: NDArray[np.float32] = np.ones(len(IMAGES), np.float32)
        limits = np.tile(np.array([pruning.points[0].point.min_keep] * 2, np.int32), (len(IMAGES), 1))
        if point is not None:
            mass, limits = point.mass, point.keep_limits
        np.testing.assert_allclose(selection.importance.sum(axis=1), 1, atol=1e-3)
        keep, counts = mass_token_select(selection.importance, mass, limits, PREFIX)
        np.testing.assert_array_equal(selection.keep, keep)
        np.testing.assert_array_equal(runner.run(IMAGES, **choice).kept, counts - PREFIX)


def test_answers_neither_change_with_the_next_batch_nor_when_asked_again(runner: Runner, artifact: Artifact) -> None:
    first = runner.run(IMAGES)
    logits, kept = first.logits.copy(), first.kept.copy()
    runner.run(IMAGES[::-1].copy())
    runner.run(IMAGES[:2])
    np.testing.assert_array_equal(first.logits, logits)
    np.testing.assert_array_equal(first.kept, kept)
    again = runner.run(IMAGES)
    np.testing.assert_array_equal(again.kept, kept)
    np.testing.assert_allclose(again.logits, logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 9])
def test_batches_that_it_was_not_built_for_are_refused(runner: Runner, count: int) -> None:
    images = random_batch((count, *SHAPE))

    def bound(images: NDArray[np.float32]) -> None:
        runner.bind(images)()

    for call in (runner.run, runner.stages, bound):
        with pytest.raises(InvalidArgument, match=f"takes 2 to 8 images, not {count}"):
            call(images)
    assert np.isfinite(runner.run(IMAGES).logits).all(), "it goes on"


def test_stages_add_up_to_a_request(runner: Runner, artifact: Artifact) -> None:
    for choice in choices(artifact):
        times = runner.stages(IMAGES, PointChoice(**choice))
        assert times is not None
        assert all(0 < seconds < 60 for seconds in (times.enqueue, times.upload, times.compute, times.download))


def test_bound_buffers_are_timed_by_the_gpu_and_leave_answers_as_they_are(runner: Runner, artifact: Artifact) -> None:
    expected = runner.run(IMAGES)
    for choice in choices(artifact):
        compute = runner.bind(IMAGES, PointChoice(**choice))
        for _ in range(3):
            seconds = compute()
            assert seconds is not None and 0 < seconds < 60
    np.testing.assert_allclose(runner.run(IMAGES).logits, expected.logits, rtol=1e-3, atol=1e-3)


def test_the_golden_image_is_answered_as_it_was_exported(runner: Runner, artifact: Artifact) -> None:
    golden = read_golden(artifact.path / GOLDEN_FILE)
    output = runner.run(np.repeat(golden.images, BATCH.smallest, axis=0))
    scale = max(1.0, float(np.abs(golden.logits).max()))
    for logits, kept in zip(output.logits, output.kept, strict=True):
        assert kept == golden.counts[0] - PREFIX
        assert np.abs(logits - golden.logits[0]).max() / scale < TOLERANCE


def test_an_engine_is_what_was_asked_for(runner: Runner, case: EngineCase, artifact: Artifact) -> None:
    """Its selection a plugin or not, its attention told images as it shall be, its weights in it or not."""
    engine: Engine = runner.engine  # type: ignore[attr-defined]
    manifest, options, full = engine.manifest, case.options, case.builder is BuilderName.TENSORRT
    plugin = full and options.plugin is PluginChoice.WHERE_POSSIBLE
    selects = SelectionForm.PLUGIN if plugin else SelectionForm.FUNCTION
    assert manifest.selection == (None if artifact.manifest.form is Form.DENSE else selects)
    if "packed" in case.kind:
        assert manifest.attention.form is AttentionForm.PACKED
    elif not full or manifest.builder_version.startswith("10."):
        assert manifest.attention.form is AttentionForm.FUSED
    else:
        assert manifest.attention.form is AttentionForm.FUSED_LENGTHS
    assert manifest.stripped == options.strip_weights == (manifest.weights is not None)
    assert manifest.gpu == (device().name if full else None)


def test_requests_of_full_tensorrt_are_recorded_whole(runner: Runner, case: EngineCase, artifact: Artifact) -> None:
    for count in (2, 8, 2):
        runner.run(IMAGES[:count])
    recorded = runner.environment["CUDA graph"]
    if case.builder is BuilderName.TENSORRT_RTX:
        assert recorded.startswith("by the runtime")
    elif artifact.manifest.form is Form.ADAPTIVE:
        assert recorded == "none, as the host reads the extents in between"
    else:
        assert recorded == "whole requests"


def test_the_environment_names_gpu_engine_and_attention(runner: Runner, case: EngineCase, artifact: Artifact) -> None:
    found, depth = runner.environment, artifact.manifest.model.geometry.depth
    here = device()
    assert found["GPU"] == f"{here.name} ({here.target})"
    assert found["engine"].startswith(f"{case.runtime}-") and here.target in found["engine"]
    fused = depth if artifact.manifest.pruning is None else depth - 1
    assert found["fused attention"] == f"{fused} of {depth}"
