"""Kernels of TensorRT for RTX are kept beside the artifact, on a stand-in device whose kernels are first extents."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.folder import Engine
from sait_deploy.engine.packages import BuilderName
from sait_deploy.runtime import Runner, load
from sait_deploy.runtime.compiled_files import COMPILED_FOLDER
from tests.engine.cases import copied_engine
from tests.runtime.cases import SHAPE
from tests.runtime.engines import Opened, Opener, opened_on_host
from tests.runtime.host_device import HostTensorRT
from tests.tiny import random_batch

RTX = BuilderName.TENSORRT_RTX.value


@pytest.fixture
def opened(engine_of: Callable[[Artifact], Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens a copy of an artifact's engine, beside which no other test's kernels lie."""

    def opener(artifact: Artifact) -> Opened:
        engine = copied_engine(engine_of(artifact), tmp_path)
        shutil.rmtree(engine.artifact.path / COMPILED_FOLDER, ignore_errors=True)
        return opened_on_host(engine, RTX, monkeypatch)

    return opener


def files(artifact: Artifact) -> list[Path]:
    return sorted((artifact.path / COMPILED_FOLDER).glob(f"{RTX}-*.blob"))


def kernels(package: HostTensorRT, part: int) -> set[int]:
    known: set[int] = package.contexts[part].config.cache.known
    return known


def ask(runner: Runner, *batches: int) -> None:
    for batch in batches:
        runner.run(random_batch((batch, *SHAPE), seed=batch))


def test_a_second_process_has_the_kernels_of_the_first(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, package = opened(tiny_adaptive)
    artifact = runner.artifact
    assert kernels(package, 0) == set()
    ask(runner, 1, 3, 1)
    assert kernels(package, 0) == {1, 3}
    again = load(artifact, RTX)
    assert kernels(package, 2) == {1, 3} and kernels(package, 3) == kernels(package, 1) != set()
    before = files(artifact)
    ask(again, 3)
    assert files(artifact) == before, "nothing was compiled, and nothing is written"
    ask(again, 2)
    load(artifact, RTX)
    assert kernels(package, 4) == {1, 2, 3}


def test_a_trunk_keeps_the_kernels_of_each_bucket_that_it_meets(tiny_adaptive: Artifact, opened: Opener) -> None:
    runner, _, package = opened(tiny_adaptive)
    images, tokens = random_batch((3, *SHAPE)), tiny_adaptive.manifest.model.geometry.tokens
    for mass in (0.2, 0.21, 1.0):
        runner.run(images, mass=mass)
    written = files(runner.artifact)
    runner.run(images, mass=1.0)
    assert files(runner.artifact) == written, "a bucket that was met has its kernels"
    load(runner.artifact, RTX)
    assert kernels(package, 3) == kernels(package, 1) >= {3 * tokens}


@pytest.mark.parametrize("why", ["another driver", "damage", "somebody else"])
def test_kernels_that_cannot_be_taken_are_made_again(tiny_adaptive: Artifact, opened: Opener, why: str) -> None:
    runner, _, package = opened(tiny_adaptive)
    ask(runner, 3)
    for file in files(runner.artifact):
        if why == "damage":
            file.write_bytes(b"\7")
        elif why == "somebody else":
            other = runner.artifact.path / COMPILED_FOLDER / "other.blob"
            other.write_bytes(b"\7")
            file.unlink()
            other.rename(file)
    package.refuses_kernels = why == "another driver"
    again = load(runner.artifact, RTX)
    assert kernels(package, 2) == set() and not files(runner.artifact)
    ask(again, 3)
    package.refuses_kernels = False
    load(runner.artifact, RTX)
    assert kernels(package, 4) == {3}
