"""A runtime is one entry and one module: artifacts run on it, and every command knows it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import sait_deploy
from sait_deploy import demo
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.registry import RUNTIMES, Runtime
from tests.cli.calls import Sait
from tests.exported import IMAGE_SIZE, TinyExport
from tests.tiny import random_batch

NAME = "onnx-evaluator"
ENTRY = Runtime(
    module="tests.adding.standards_runtime",
    runner="EvaluatorRunner",
    package="onnx",
    extra="cpu",
    task="run on ONNX's own evaluator",
)


@pytest.fixture(autouse=True)
def _added() -> Iterator[None]:
    """The entry, for one test; afterwards all others stand in their order, which ``doctor`` keeps to."""
    before = dict(RUNTIMES)
    RUNTIMES[NAME] = ENTRY
    yield
    RUNTIMES.clear()
    RUNTIMES.update(before)


def test_artifacts_run_on_it(tiny: TinyExport) -> None:
    images = random_batch((2, 3, IMAGE_SIZE, IMAGE_SIZE))
    runner, expected = sait_deploy.load(tiny.half, NAME), sait_deploy.load(tiny.half).run(images)
    assert (runner.runtime, runner.environment) == (NAME, {"runtime": NAME})
    np.testing.assert_allclose(runner.run(images).logits, expected.logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(runner.run(images).kept, expected.kept)


def test_predict_and_bench_run_on_it(sait: Sait, tiny: TinyExport) -> None:
    done = sait("predict", demo.IMAGES / "3", "--artifact", tiny.half.path, "--runtime", NAME, "--json")
    assert done.code == 0, done.err
    assert f"on {NAME}" in done.err
    assert len(json.loads(done.out)) == 4
    quick = ("--batch", "1", "--duration", "0.01", "--warmup", "0", "--images", demo.IMAGES)
    done = sait("bench", tiny.half.path, "--runtime", NAME, *quick, "-o", "report.json")
    assert done.code == 0, done.err
    assert "density 0.5" in done.out
    assert f"{NAME} and onnxruntime" in done.out, "kept tokens are compared with ONNX Runtime's"


def test_doctor_tries_it(sait: Sait, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name, runtime in RUNTIMES.items() if runtime.builder is not None]:
        del RUNTIMES[name]  # building engines takes a while
    found = {finding["part"]: finding for finding in json.loads(sait("doctor", "--json").out)}
    assert found[ENTRY.task]["state"] == "works"
    monkeypatch.setitem(sys.modules, ENTRY.package, None)
    found = {finding["part"]: finding for finding in json.loads(sait("doctor", "--json").out)}
    assert (found[ENTRY.task]["state"], found[ENTRY.task]["hint"]) == ("missing", "pip install 'sait-deploy[cpu]'")


def test_who_misspells_a_runtime_is_told_of_it(tiny: TinyExport) -> None:
    with pytest.raises(InvalidArgument) as caught:
        sait_deploy.load(tiny.half, "onnx")
    assert NAME in caught.value.hint
