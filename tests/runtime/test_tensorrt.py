"""TensorRT for RTX: what is said where it cannot run, and, where there is a GPU, what it answers."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Form
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.cuda import device, find_device
from sait_deploy.engine.folder import Engine
from sait_deploy.engine.options import TARGETS, BatchRange, BuilderChoice, EngineOptions
from sait_deploy.errors import ArtifactError, InvalidArgument, RuntimeUnavailable, SaitError
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime import Runner, load
from tests.exported import TinyExport
from tests.needed import no_gpu
from tests.runtime.cases import ONE_THREAD, SHAPE
from tests.tiny import random_batch

RTX = "tensorrt-rtx"
BATCH = BatchRange(2, 4, 8)
IMAGES = random_batch((BATCH.largest, *SHAPE), seed=5)
PREFIX = 1
TOLERANCE = 3e-2
"""Largest difference from fp32 logits, relative to the largest of them or 1, in half precision."""

FORMS = ("dense", "density", "adaptive")
CHOICES: list[dict[str, Any]] = [
    {},
    {"point": "fast"},
    {"point": "wide"},
    {"mass": [0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0]},
    {"mass": 0.3, "min_keep": [1, 3, 5, 36, 9, 11, 2, 7], "max_keep": [2, 3, 6, 36, 12, 11, 36, 20]},
    {"mass": 1},
    {"mass": 0, "max_keep": 1},
]


def needs_gpu() -> None:
    """Goes on where an engine can run."""
    pytest.importorskip("tensorrt_rtx")
    try:
        target = device().target
    except SaitError as error:
        no_gpu(f"{error.message}; {error.hint}")
    if target not in TARGETS:
        pytest.skip(f"TensorRT for RTX builds for no {target}")


@pytest.fixture(scope="module")
def engine_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Artifact], Engine]:
    """Builds an artifact's engine in a copy of it, once."""
    pytest.importorskip("tensorrt_rtx")

    @functools.cache
    def build(path: Path) -> Engine:
        place = Path(shutil.copytree(path, tmp_path_factory.mktemp("engine") / path.name))
        return build_engine(place, EngineOptions(BuilderChoice.TENSORRT_RTX, batch=BATCH))

    return lambda artifact: build(artifact.path)


@pytest.fixture(scope="module", params=FORMS)
def artifact(request: pytest.FixtureRequest, tiny: TinyExport, tiny_adaptive: Artifact) -> Artifact:
    """The small model in every form."""
    return {"dense": tiny.dense, "density": tiny.half, "adaptive": tiny_adaptive}[request.param]


@pytest.fixture(scope="module")
def gpu(artifact: Artifact, engine_of: Callable[[Artifact], Engine]) -> Runner:
    """The artifact's engine on a GPU, where there is one."""
    needs_gpu()
    return load(engine_of(artifact).artifact, RTX)


def choices(artifact: Artifact) -> list[dict[str, Any]]:
    return CHOICES if artifact.manifest.form is Form.ADAPTIVE else [{}]


def part_of(choice: dict[str, Any], count: int) -> dict[str, Any]:
    """The choice for the first images of the batch."""
    return {name: value[:count] if isinstance(value, list) else value for name, value in choice.items()}


# Where no GPU is.


@pytest.mark.skipif(find_device() is not None, reason="there is a GPU")
def test_loading_says_that_no_gpu_can_be_used(tiny_adaptive: Artifact, engine_of: Callable[[Artifact], Engine]) -> None:
    """Whether or not there is an engine."""
    pytest.importorskip("cuda.bindings")
    for place in (engine_of(tiny_adaptive).artifact.path, tiny_adaptive.path):
        with pytest.raises(RuntimeUnavailable, match="no GPU can be used") as caught:
            load(place, RTX)
        assert caught.value.exit_code == 7
        assert len(caught.value.message.splitlines()) == 1
        assert "driver" in caught.value.hint


# Where one is.


def test_a_gpu_without_an_engine(tiny: TinyExport) -> None:
    needs_gpu()
    with pytest.raises(ArtifactError, match="has no tensorrt-rtx engine") as caught:
        load(tiny.dense, RTX)
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


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_an_engine_gives_onnxruntimes_answers(gpu: Runner, artifact: Artifact, count: int) -> None:
    """At every size of a batch, at named and mixed points."""
    cpu = load(artifact, options=ONE_THREAD)
    for choice in choices(artifact):
        agrees(artifact, gpu, cpu, choice, count)


def test_an_engine_selects_bit_for_bit_as_defined(gpu: Runner, artifact: Artifact) -> None:
    pruning = artifact.manifest.pruning
    if pruning is None:
        pytest.skip("a dense artifact selects nothing")
    for choice in choices(artifact):
        selection = gpu.select(IMAGES, **choice)
        point = resolve(artifact.manifest, len(IMAGES), PointChoice(**choice))
        mass: NDArray[np.float32] = np.ones(len(IMAGES), np.float32)
        limits = np.tile(np.array([pruning.points[0].point.min_keep] * 2, np.int32), (len(IMAGES), 1))
        if point is not None:
            mass, limits = point.mass, point.keep_limits
        np.testing.assert_allclose(selection.importance.sum(axis=1), 1, atol=1e-3)
        keep, counts = mass_token_select(selection.importance, mass, limits, PREFIX)
        np.testing.assert_array_equal(selection.keep, keep)
        np.testing.assert_array_equal(gpu.run(IMAGES, **choice).kept, counts - PREFIX)


def test_answers_neither_change_with_the_next_batch_nor_when_asked_again(gpu: Runner, artifact: Artifact) -> None:
    first = gpu.run(IMAGES)
    logits, kept = first.logits.copy(), first.kept.copy()
    gpu.run(IMAGES[::-1].copy())
    gpu.run(IMAGES[:2])
    np.testing.assert_array_equal(first.logits, logits)
    np.testing.assert_array_equal(first.kept, kept)
    again = gpu.run(IMAGES)
    np.testing.assert_array_equal(again.kept, kept)
    np.testing.assert_allclose(again.logits, logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 9])
def test_batches_that_it_was_not_built_for_are_refused(gpu: Runner, count: int) -> None:
    images = random_batch((count, *SHAPE))

    def bound(images: NDArray[np.float32]) -> None:
        gpu.bind(images)()

    for call in (gpu.run, gpu.stages, bound):
        with pytest.raises(InvalidArgument, match=f"takes 2 to 8 images, not {count}"):
            call(images)
    assert np.isfinite(gpu.run(IMAGES).logits).all(), "it goes on"


def test_stages_add_up_to_a_request(gpu: Runner, artifact: Artifact) -> None:
    for choice in choices(artifact):
        times = gpu.stages(IMAGES, PointChoice(**choice))
        assert times is not None
        assert all(0 < seconds < 60 for seconds in (times.enqueue, times.upload, times.compute, times.download))


def test_bound_buffers_are_timed_by_the_gpu_and_leave_answers_as_they_are(gpu: Runner, artifact: Artifact) -> None:
    expected = gpu.run(IMAGES)
    for choice in choices(artifact):
        compute = gpu.bind(IMAGES, PointChoice(**choice))
        for _ in range(3):
            seconds = compute()
            assert seconds is not None and 0 < seconds < 60
    np.testing.assert_allclose(gpu.run(IMAGES).logits, expected.logits, rtol=1e-3, atol=1e-3)


def test_the_environment_names_gpu_engine_and_attention(gpu: Runner, artifact: Artifact) -> None:
    found, depth = gpu.environment, artifact.manifest.model.geometry.depth
    here = device()
    assert found["GPU"] == f"{here.name} ({here.target})"
    assert found["engine"].startswith("tensorrt-rtx-") and here.target in found["engine"]
    fused = depth if artifact.manifest.pruning is None else depth - 1
    assert found["fused attention"] == f"{fused} of {depth}"
