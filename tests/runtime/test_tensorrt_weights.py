"""Engines without weights on a stand-in device: what they are given when they are loaded, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.lowering import lower_parts, lowering_of
from sait_deploy.engine.weights import digest_of, weights_of
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.runtime import load
from tests.exported import TinyExport
from tests.runtime.cases import ONE_THREAD, SHAPE
from tests.runtime.engines import CLOSE, Opener
from tests.runtime.host_refitter import HostRefitter
from tests.tiny import random_batch

EXTRA = np.zeros(3, np.float32)


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_an_engine_without_weights_is_given_the_artifacts(
    tiny: TinyExport, tiny_adaptive: Artifact, opened: Opener, runtime: str
) -> None:
    """A whole engine's, and those of a stem and a trunk, each from its own graph, lowered as the engine's was."""
    images = random_batch((3, *SHAPE), seed=4)
    for artifact in (tiny.half, tiny_adaptive):
        runner, _, _ = opened(artifact, runtime, stripped=True)
        expected = load(artifact, "onnxruntime", ONE_THREAD).run(images)
        np.testing.assert_allclose(runner.run(images).logits, expected.logits, **CLOSE)


def asks_for_more(refitter: HostRefitter) -> None:
    refitter.asked |= {"other.weight": EXTRA, "other.bias": EXTRA}


def asks_for_another_size(refitter: HostRefitter) -> None:
    refitter.asked["vit.head.bias"] = EXTRA


def asks_for_another_type(refitter: HostRefitter) -> None:
    refitter.asked["vit.head.bias"] = refitter.asked["vit.head.bias"].astype(np.float16)


def refuses_one(refitter: HostRefitter) -> None:
    refitter.refuses = "vit.head.bias"


def misses_some(refitter: HostRefitter) -> None:
    refitter.unnamed = 2


def cannot_end(refitter: HostRefitter) -> None:
    refitter.ends = False


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (asks_for_more, "it asks for 'other.weight' and 1 more, which the lowered graph lacks"),
        (
            asks_for_another_size,
            "it takes 'vit.head.bias' as 3 numbers of float32, and the lowered graph has 5 of float32",
        ),
        (
            asks_for_another_type,
            "it takes 'vit.head.bias' as 5 numbers of float16, and the lowered graph has 5 of float32",
        ),
        (refuses_one, r"TensorRT refuses 'vit.head.bias' \(weights of another kind\)"),
        (misses_some, "it misses 'one without a name' and 1 more besides"),
        (cannot_end, "no memory"),
    ],
)
def test_weights_that_do_not_fit_are_one_clear_line(
    tiny: TinyExport, opened: Opener, monkeypatch: pytest.MonkeyPatch, change: Any, why: str
) -> None:
    made = HostRefitter.__init__

    def changed(refitter: HostRefitter, *arguments: Any) -> None:
        made(refitter, *arguments)
        change(refitter)

    monkeypatch.setattr(HostRefitter, "__init__", changed)
    with pytest.raises(
        RuntimeUnavailable, match=rf"the model of engine .* cannot be given the weights of .*: {why}$"
    ) as caught:
        opened(tiny.half, "tensorrt", stripped=True)
    assert "\n" not in caught.value.message
    assert "build-engine" in caught.value.hint


def test_a_refitter_that_cannot_be_made_is_one_clear_line(
    tiny: TinyExport, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pybind11 says so: by a TypeError."""

    def none(_: Any, __: Any, logger: Any) -> None:
        logger.log("error", "this engine is not refittable")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(HostRefitter, "__init__", none)
    with pytest.raises(RuntimeUnavailable, match="this engine is not refittable"):
        opened(tiny.half, "tensorrt", stripped=True)


def test_an_engine_is_given_no_weights_but_those_that_it_was_built_with(tiny: TinyExport, opened: Opener) -> None:
    """Kernels are chosen for the numbers that are left out: with others, TensorRT answers something."""
    runner, _, _ = opened(tiny.half, "tensorrt", stripped=True)
    engine = runner.engine  # type: ignore[attr-defined]
    parts = lower_parts(engine.artifact, lowering_of(engine.manifest), engine.path)
    own = {name.value: digest_of(weights_of(part.path)) for name, part in parts.items()}
    opened(tiny.half, "tensorrt", stripped=True, weights=own)
    with pytest.raises(RuntimeUnavailable, match="lowered otherwise here than where the engine was built"):
        opened(tiny.half, "tensorrt", stripped=True, weights=dict.fromkeys(own, "0" * 64))
