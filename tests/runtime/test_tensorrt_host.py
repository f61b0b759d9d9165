"""The TensorRT runner on a stand-in device: everything but TensorRT itself and the GPU."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sait_deploy import cuda
from sait_deploy.artifact import Artifact
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.folder import Engine, write_engine_manifest
from sait_deploy.engine.lowering import lower_parts, lowering_of
from sait_deploy.engine.options import BatchRange, BuilderChoice, BuilderName, EngineOptions
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import EnginePrecision
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.points import PointChoice, resolve
from sait_deploy.runtime import Runner, RuntimeName, load, tensorrt
from tests.exported import TinyExport
from tests.runtime.cases import ONE_THREAD, SHAPE
from tests.runtime.host_device import HostCuda, HostTensorRT
from tests.tiny import random_batch

BATCH = BatchRange(1, 3, 5)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

Opened = tuple[Runner, HostCuda, HostTensorRT]
Opener = Callable[..., Opened]


@pytest.fixture(scope="module")
def engine_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Artifact], Engine]:
    """Builds an artifact's engine with the real builder, in a copy, once."""
    pytest.importorskip("tensorrt_rtx", reason="engines are built by TensorRT for RTX")

    @functools.cache
    def build(path: Path) -> Engine:
        place = shutil.copytree(path, tmp_path_factory.mktemp("engine") / path.name)
        options = EngineOptions(BuilderChoice.TENSORRT_RTX, EnginePrecision.FP32, targets=("sm89",), batch=BATCH)
        return build_engine(place, options)

    return lambda artifact: build(artifact.path)


@pytest.fixture
def opened(engine_of: Callable[[Artifact], Engine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Opener:
    """Opens an artifact's engine on the stand-in device, as an engine of either TensorRT."""

    def opener(artifact: Artifact, runtime: RuntimeName = RuntimeName.TENSORRT_RTX) -> Opened:
        engine = engine_of(artifact)
        said = dataclasses.replace(engine.manifest, builder=BuilderName(runtime.value))
        write_engine_manifest(engine.path, said)
        lowered = lower_parts(engine.artifact, lowering_of(said), tmp_path)
        device = HostCuda()
        plans = {engine.plan_path(name): part.path for name, part in lowered.items()}
        package = HostTensorRT(said.builder_version, device, plans)
        monkeypatch.setattr(cuda, "_runtime", lambda: device)
        monkeypatch.setattr(tensorrt, "load_package", lambda _: package)
        return load(engine.artifact, runtime), device, package

    return opener


@pytest.mark.parametrize("batch", [1, 4, 5, 2])
def test_dense_and_density_engines_answer_as_onnxruntime(tiny: TinyExport, opened: Opener, batch: int) -> None:
    images = random_batch((batch, *SHAPE), seed=batch)
    for artifact in (tiny.dense, tiny.half):
        runner, _, package = opened(artifact)
        expected = load(artifact, RuntimeName.ONNXRUNTIME, ONE_THREAD).run(images)
        for _ in range(2):
            output = runner.run(images)
            np.testing.assert_allclose(output.logits, expected.logits, **CLOSE)
            assert output.kept.tolist() == expected.kept.tolist()
        (context,) = package.contexts
        assert context.config.cuda_graph_strategy == "whole"


def test_an_adaptive_engine_gives_each_image_its_own_point(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, package = opened(tiny_adaptive)
    reference = load(tiny_adaptive, RuntimeName.ONNXRUNTIME, ONE_THREAD)
    rng = np.random.default_rng(3)
    for batch in (5, 1, 3, 5, 2):
        images = random_batch((batch, *SHAPE), seed=batch)
        mass = rng.uniform(0.05, 1.05, size=batch).astype(np.float32)
        expected, output = reference.run(images, mass=mass), runner.run(images, mass=mass)
        np.testing.assert_allclose(output.logits, expected.logits, **CLOSE)
        assert output.kept.tolist() == expected.kept.tolist()
    stem, trunk = package.contexts
    specialised = [context.config.dynamic_shapes_kernel_specialization_strategy for context in (stem, trunk)]
    assert specialised == ["eager", "none"], "a trunk meets new shapes in every batch"
    assert trunk.addresses["kept"] == stem.addresses["rows"], "kept is the front of the stem's own buffer"
    for name in ("tokens", "cu_seqlens", "guard"):
        assert trunk.addresses[name] == stem.addresses[name], f"{name} was copied"


def test_tensorrt_records_whole_requests_once_for_each_batch_size(tiny: TinyExport, opened: Opener) -> None:
    runner, device, package = opened(tiny.half, RuntimeName.TENSORRT)
    reference = load(tiny.half, RuntimeName.ONNXRUNTIME, ONE_THREAD)
    batches = (2, 4, 2, 2)
    for turn, batch in enumerate(batches):
        images = random_batch((batch, *SHAPE), seed=turn)
        np.testing.assert_allclose(runner.run(images).logits, reference.run(images).logits, **CLOSE)
    assert device.launches == len(batches)
    assert package.contexts[0].config is None


def test_an_adaptive_engine_on_tensorrt_records_nothing_as_it_waits(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, device, _ = opened(tiny_adaptive, RuntimeName.TENSORRT)
    runner.run(random_batch((2, *SHAPE)))
    assert device.launches == 0


def test_what_was_selected_can_be_checked(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, _ = opened(tiny_adaptive)
    images = random_batch((4, *SHAPE), seed=9)
    choice = PointChoice(None, [0.2, 0.5, 0.9, 1.0])
    found, point = runner.select_at(images, choice), resolve(tiny_adaptive.manifest, 4, choice)
    assert point is not None
    prefix = tiny_adaptive.manifest.model.geometry.prefix_tokens
    keep, _ = mass_token_select(found.importance, point.mass, point.keep_limits, prefix)
    assert np.array_equal(found.keep, keep)
    np.testing.assert_allclose(found.logits, runner.run_at(images, choice).logits)


def test_answers_stay_when_the_next_batch_runs(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, _ = opened(tiny_adaptive)
    first = runner.run(random_batch((2, *SHAPE), seed=1))
    before = first.logits.copy()
    runner.run(random_batch((2, *SHAPE), seed=2))
    assert np.array_equal(first.logits, before)


def test_a_batch_that_the_engine_was_not_built_for_is_refused(tiny: TinyExport, opened: Opener) -> None:
    runner, _, _ = opened(tiny.half)
    with pytest.raises(InvalidArgument, match="takes 1 to 5 images, not 6"):
        runner.run(random_batch((6, *SHAPE)))


def test_compute_and_stages_are_timed_by_the_device(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, _ = opened(tiny_adaptive)
    images = random_batch((3, *SHAPE))
    assert runner.bind(images)() == pytest.approx(1e-3)
    stages = runner.stages(images)
    assert stages is not None
    assert (stages.upload, stages.compute, stages.download) == pytest.approx((1e-3, 1e-3, 1e-3))
    assert stages.enqueue > 0
