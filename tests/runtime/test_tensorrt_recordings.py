"""Recordings of the TensorRT runner on a stand-in device: when they are made, replayed, let go and done without."""

from __future__ import annotations

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.runtime import Runner, load
from tests.exported import TinyExport
from tests.runtime.cases import ONE_THREAD, SHAPE
from tests.runtime.engines import CLOSE, Opener
from tests.runtime.host_device import HostContext, HostCuda, Status
from tests.tiny import random_batch

UNSUPPORTED = Status.cudaErrorStreamCaptureUnsupported
INVALIDATED = Status.cudaErrorStreamCaptureInvalidated


@pytest.fixture(scope="module")
def reference(tiny: TinyExport) -> Runner:
    return load(tiny.half, "onnxruntime", ONE_THREAD)


def check(runner: Runner, reference: Runner, batch: int, seed: int) -> None:
    """Checks the answer to a batch that was not seen before."""
    images = random_batch((batch, *SHAPE), seed=seed)
    found, expected = runner.run(images), reference.run(images)
    np.testing.assert_allclose(found.logits, expected.logits, **CLOSE)
    assert found.kept.tolist() == expected.kept.tolist()


def test_tensorrt_records_whole_requests_once_while_the_batch_size_stays(
    tiny: TinyExport, reference: Runner, opened: Opener
) -> None:
    runner, device, package = opened(tiny.half, "tensorrt")
    captures = []
    for turn, batch in enumerate((2, 4, 2, 2, 5, 5)):
        check(runner, reference, batch, seed=turn)
        captures.append(device.captures)
    assert captures == [1, 2, 3, 3, 4, 4], "a recording is worth nothing once its context has seen other shapes"
    assert device.launches == len(captures)
    assert runner.environment["CUDA graph"] == "whole requests"
    assert package.contexts[0].config is None


@pytest.mark.parametrize(("other", "captures"), [(3, 2), (2, 1)])
def test_a_recording_is_not_replayed_after_a_selection_of_another_size(
    tiny: TinyExport, reference: Runner, opened: Opener, other: int, captures: int
) -> None:
    runner, device, _ = opened(tiny.half, "tensorrt")
    check(runner, reference, 2, seed=1)
    images = random_batch((other, *SHAPE), seed=2)
    np.testing.assert_allclose(runner.select(images).logits, reference.run(images).logits, **CLOSE)
    assert device.launches == 1, "what is selected is checked on work that is not recorded"
    check(runner, reference, 2, seed=3)
    assert (device.captures, device.launches) == (captures, 2)


def test_what_is_bound_is_recorded_apart_and_again_after_other_sizes(
    tiny: TinyExport, reference: Runner, opened: Opener
) -> None:
    runner, device, _ = opened(tiny.half, "tensorrt")
    images = random_batch((2, *SHAPE))
    bound = runner.bind(images)
    for _ in range(2):
        bound()
    assert (device.captures, device.launches) == (1, 2)
    check(runner, reference, 2, seed=1)
    bound()
    assert (device.captures, device.launches) == (2, 4), "both recordings of one size stay"
    check(runner, reference, 5, seed=2)
    bound()
    assert runner.stages(images) is not None
    check(runner, reference, 2, seed=3)
    assert (device.captures, device.launches) == (5, 8)


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("tensorrt", "none, as the host reads the extents in between"),
        ("tensorrt-rtx", "by the runtime, of stem and trunk"),
    ],
)
def test_an_adaptive_engine_is_not_recorded_as_it_waits(
    tiny_adaptive: Artifact, opened: Opener, runtime: str, said: str
) -> None:
    runner, device, _ = opened(tiny_adaptive, runtime)
    images = random_batch((2, *SHAPE))
    runner.run(images)
    runner.bind(images)()
    assert (device.captures, device.launches) == (0, 0)
    assert runner.environment["CUDA graph"] == said


def test_tensorrt_for_rtx_records_its_own_work(tiny: TinyExport, reference: Runner, opened: Opener) -> None:
    runner, device, package = opened(tiny.half)
    for turn, batch in enumerate((2, 4, 2)):
        check(runner, reference, batch, seed=turn)
    assert (device.captures, device.launches) == (0, 0)
    assert runner.environment["CUDA graph"] == "by the runtime"
    assert package.contexts[0].config.cuda_graph_strategy == "whole"


def refuse(what: str, device: HostCuda, context: HostContext) -> None:
    if what == "work":
        context.refuses = "recording"
    else:
        device.refused = {what: UNSUPPORTED if what == "begin" else INVALIDATED}


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("begin", "none: a CUDA call failed (cudaErrorStreamCaptureUnsupported)"),
        ("end", "none: a CUDA call failed (cudaErrorStreamCaptureInvalidated)"),
        ("work", "none: the model of engine tensorrt-rtx-"),
    ],
)
def test_where_a_recording_is_refused_requests_run_without_and_the_reason_is_told(
    tiny: TinyExport, reference: Runner, opened: Opener, what: str, reason: str
) -> None:
    runner, device, package = opened(tiny.half, "tensorrt")
    refuse(what, device, package.contexts[0])
    for turn, batch in enumerate((2, 2, 4)):
        check(runner, reference, batch, seed=turn)
    assert runner.bind(random_batch((2, *SHAPE)))() is not None
    assert (device.captures, device.launches) == (1, 0), "it is tried once"
    assert device.recording is None, "the stream is left as it was"
    assert len(device.destroyed) == (what == "work"), "nor is what was recorded so far kept"
    assert runner.environment["CUDA graph"].startswith(reason)


def test_a_recording_that_is_refused_later_ends_those_before(
    tiny: TinyExport, reference: Runner, opened: Opener
) -> None:
    runner, device, package = opened(tiny.half, "tensorrt")
    check(runner, reference, 2, seed=1)
    refuse("end", device, package.contexts[0])
    for turn, batch in enumerate((4, 2, 2)):
        check(runner, reference, batch, seed=turn)
    assert device.launches == 1
    assert runner.environment["CUDA graph"].startswith("none: ")
