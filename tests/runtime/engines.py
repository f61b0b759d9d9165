"""Engines of the small models, opened on the stand-in device as engines of either TensorRT."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine import cuda
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.folder import Engine, write_engine_manifest
from sait_deploy.engine.lowering import lower_parts, lowering_of
from sait_deploy.engine.options import BatchRange, BuilderChoice, EngineOptions
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import Profile, profiles
from sait_deploy.engine.trust import record_built
from sait_deploy.exporters.names import EnginePrecision
from sait_deploy.runtime import Runner, load, tensorrt
from tests.runtime.host_device import HostCuda, HostTensorRT
from tests.shared import made_once

BATCH: Final = BatchRange(1, 3, 5)
CLOSE: Final[dict[str, Any]] = {"rtol": 1e-4, "atol": 1e-4}

Opened = tuple[Runner, HostCuda, HostTensorRT]
Opener = Callable[..., Opened]


def built(path: Path, batch: BatchRange = BATCH) -> Engine:
    """Builds an artifact's engine with the real builder, in its folder."""
    return build_engine(
        path, EngineOptions(BuilderChoice.TENSORRT_RTX, EnginePrecision.FP32, targets=("sm89",), batch=batch)
    )


def engine_of(artifact: Artifact, batch: BatchRange = BATCH) -> Engine:
    """Builds an artifact's engine, in a copy, once in a run."""
    path = artifact.path
    return made_once(
        f"engine of {path} for {batch}", lambda folder: built(Path(shutil.copytree(path, folder / path.name)), batch)
    )


def opened_on_host(engine: Engine, runtime: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Opened:
    """Opens an engine as one of that runtime's, which has the profiles that its builder gives it."""
    device, package = on_host(engine, runtime, monkeypatch, **changes)
    return load(engine.artifact, runtime), device, package


def on_host(
    engine: Engine, runtime: str, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[HostCuda, HostTensorRT]:
    """Puts the stand-in device in place, on which an engine runs as one of that runtime's, its manifest changed."""
    builder = BuilderName(runtime)
    spans = profiles(engine.artifact.manifest, engine.manifest.batch, builder)
    parts = tuple(
        dataclasses.replace(part, profiles=_of_inputs(spans[part.name], [tensor.name for tensor in part.inputs]))
        for part in engine.manifest.parts
    )
    said = dataclasses.replace(engine.manifest, builder=builder, parts=parts, **changes)
    write_engine_manifest(engine.path, said)
    record_built(dataclasses.replace(engine, manifest=said).digests)
    lowering = lowering_of(said)
    lowered = made_once(
        f"{said.source_sha256} as {lowering}", lambda place: lower_parts(engine.artifact, lowering, place)
    )
    device = HostCuda()
    plans = {engine.plan_path(name): part.path for name, part in lowered.items()}
    package = HostTensorRT(said.builder_version, device, plans)
    package.without_weights = said.stripped
    monkeypatch.setattr(cuda, "_runtime", lambda: device)
    monkeypatch.setattr(tensorrt, "load_package", lambda _: package)
    return device, package


def _of_inputs(spans: tuple[Profile, ...], names: list[str]) -> tuple[Profile, ...]:
    return tuple(Profile({name: span.ranges[name] for name in names}) for span in spans)
