"""What TensorRT made of a network: its layers after fusion, and the memory it takes. Needs a GPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sait_deploy.engine.choose import load_package
from sait_deploy.engine.cuda import device
from sait_deploy.engine.folder import Engine, check_runs_here
from sait_deploy.engine.loading import EngineLoader
from sait_deploy.engine.profiles import PartName


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


def inspect_layers(engine: Engine) -> tuple[LoadedInfo, ...]:
    """Loads an engine and lists what it is made of.

    Raises:
        RuntimeUnavailable: it cannot run on this machine.
        BuilderUnavailable: its TensorRT is not installed.
    """
    trt = load_package(engine.manifest.builder)
    check_runs_here(engine.manifest, str(trt.__version__), device())
    loader = EngineLoader(trt, engine)
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
