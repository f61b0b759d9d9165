"""What an artifact's engines are, and what TensorRT makes of them on this machine's GPU."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.choose import load_package
from sait_deploy.engine.cuda import device
from sait_deploy.engine.folder import Engine, check_runs_here, engine_folders, open_engine
from sait_deploy.engine.loading import EngineLoader
from sait_deploy.engine.manifest import to_json
from sait_deploy.engine.profiles import PartName
from sait_deploy.engine.trtexec import trtexec_commands
from sait_deploy.engine.trust import granted
from sait_deploy.errors import SaitError


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer of an engine: its name, kind, and the element types of its outputs as TensorRT words them."""

    name: str
    kind: str
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedInfo:
    """One engine file on this GPU.

    Attributes:
        part: which.
        layers: after fusion; only names where the engine keeps no more.
        memory_bytes: GPU memory for activations, beside the weights.
    """

    part: PartName
    layers: tuple[LayerInfo, ...]
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class EngineInspection:
    """An engine folder of an artifact.

    Attributes:
        folder: where it lies.
        engine: what is in it; None where it is damaged.
        loaded: what TensorRT made of each part on this machine, or why that is not known.
        damage: why it cannot be used.
    """

    folder: Path
    engine: Engine | None
    loaded: tuple[LoadedInfo, ...] | str
    damage: SaitError | None = None

    def as_dict(self) -> dict[str, object]:
        """Returns plain data: the manifest, the layers on this machine, and how trtexec loads the engine."""
        if self.engine is None:
            return {"path": str(self.folder), "damage": "" if self.damage is None else self.damage.message}
        loaded = self.loaded if isinstance(self.loaded, str) else [dataclasses.asdict(info) for info in self.loaded]
        built = built_as_dict(self.engine)
        return {"path": built["path"], "manifest": built["manifest"], "loaded": loaded, "trtexec": built["trtexec"]}


def built_as_dict(engine: Engine) -> dict[str, object]:
    """Returns plain data on an engine: where it is, its manifest, and how trtexec loads it."""
    return {
        "path": str(engine.path),
        "manifest": json.loads(to_json(engine.manifest)),
        "trtexec": trtexec_commands(engine),
    }


def inspect_engines(artifact: Artifact) -> tuple[EngineInspection, ...]:
    """Opens an artifact's engines, each by itself, so that a damaged one hides no other."""
    found = []
    for folder in engine_folders(artifact):
        try:
            engine = open_engine(artifact, folder)
        except SaitError as error:
            found.append(EngineInspection(folder, None, "", error))
            continue
        try:
            found.append(EngineInspection(folder, engine, inspect_layers(engine)))
        except SaitError as error:
            found.append(EngineInspection(folder, engine, f"unknown: {error.message}"))
    return tuple(found)


def inspect_layers(engine: Engine) -> tuple[LoadedInfo, ...]:
    """Loads an engine and lists what it is made of.

    Raises:
        RuntimeUnavailable: it cannot run on this machine.
        BuilderUnavailable: its TensorRT is not installed.
    """
    trt = load_package(engine.manifest.builder)
    check_runs_here(engine.manifest, str(trt.__version__), device())
    loader = EngineLoader(trt, engine, granted())
    found = []
    for part in engine.manifest.parts:
        loaded = loader.load(part.name)
        text = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        layers = tuple(_layer(entry) for entry in json.loads(text).get("Layers", []))
        found.append(LoadedInfo(part.name, layers, int(loaded.device_memory_size_v2)))
    return tuple(found)


def _layer(entry: Any) -> LayerInfo:
    if not isinstance(entry, dict):
        return LayerInfo(str(entry), "", ())
    types = tuple(str(output.get("Format/Datatype", "")) for output in entry.get("Outputs", ()))
    return LayerInfo(str(entry.get("Name", "")), str(entry.get("LayerType", "")), types)
