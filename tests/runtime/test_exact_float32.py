"""The torch runtime computes float32 in float32, whatever a process has set, and leaves what was set as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.runtime import load
from sait_deploy.runtime.exact_float32 import _BACKENDS, EXACT_FLOAT32
from tests.runtime.cases import COUNT, ONE_THREAD, SHAPE
from tests.tiny import random_batch

IMAGES = random_batch((COUNT, *SHAPE), seed=5)


def state() -> tuple[str, ...]:
    """What products and convolutions round float32 to: read without a GPU, as torch does on one."""
    return tuple(backend.fp32_precision for backend in _BACKENDS)


def by_the_newer_setting() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


SETTINGS: dict[str, Callable[[], object]] = {
    "torch's own: convolutions in TF32": lambda: None,
    "products in TF32": lambda: torch.set_float32_matmul_precision("high"),
    "products in bfloat16": lambda: torch.set_float32_matmul_precision("medium"),
    "products in TF32, by the newer setting": by_the_newer_setting,
}


@pytest.fixture(params=SETTINGS)
def before(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """What a process had set before."""
    start = state()
    SETTINGS[request.param]()
    yield state()
    torch.set_float32_matmul_precision("highest")
    for backend, precision in zip(_BACKENDS, start, strict=True):
        backend.fp32_precision = precision


def test_the_torch_runtime_rounds_nothing_and_sets_nothing(
    tiny_adaptive: Artifact, before: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "tf32" in before
    found: list[tuple[tuple[str, ...], bool]] = []
    runner: Any = load(tiny_adaptive, "torch", ONE_THREAD)
    trace = runner._model.trace

    def watched(*inputs: Any, **more: Any) -> Any:
        found.append((state(), torch.backends.cuda.matmul.allow_tf32))
        return trace(*inputs, **more)

    monkeypatch.setattr(runner._model, "trace", watched)
    assert state() == before, "loading sets nothing"
    runner.select(IMAGES)
    assert state() == before
    runner.bind(IMAGES)()
    assert state() == before
    assert found == [(("ieee",) * len(_BACKENDS), False)] * 2


def test_products_on_a_processor_are_those_of_float32() -> None:
    """With oneDNN's bfloat16 products, where the processor has them, the error would be far larger."""
    a, b = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    torch.set_float32_matmul_precision("medium")
    try:
        with EXACT_FLOAT32:
            found = (a @ b).numpy()
    finally:
        torch.set_float32_matmul_precision("highest")
    np.testing.assert_allclose(found, a.double().numpy() @ b.double().numpy(), atol=1e-4)


def test_one_thread_that_ends_takes_nothing_from_another(before: tuple[str, ...]) -> None:
    def short() -> None:
        with EXACT_FLOAT32:
            assert state() == ("ieee",) * len(_BACKENDS)

    with EXACT_FLOAT32:
        other = threading.Thread(target=short)
        other.start()
        other.join()
        assert state() == ("ieee",) * len(_BACKENDS)
    assert state() == before


def test_products_and_convolutions_on_a_gpu(gpu: torch.device, before: tuple[str, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    a, images = torch.randn(512, 512, generator=draw), torch.randn(8, 64, 16, 16, generator=draw)
    kernel = torch.randn(64, 64, 3, 3, generator=draw)
    with EXACT_FLOAT32:
        products, folded = a.to(gpu) @ a.to(gpu), torch.conv2d(images.to(gpu), kernel.to(gpu))
    for found, wanted in (
        (products, a.double() @ a.double()),
        (folded, torch.conv2d(images.double(), kernel.double())),
    ):
        assert float((found.cpu().double() - wanted).norm() / wanted.norm()) < 1e-5
    assert state() == before
