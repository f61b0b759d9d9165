"""A stand-in for the process that builds: it builds nothing, and the stand-in device runs what it was asked to build.

So a test that builds an engine and runs it runs here, too, but for TensorRT itself. What ONNX Runtime lacks in a graph,
plugins, attention on packed rows and masks of one row, the stand-in runs in standard operators.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

import onnx
import pytest

from sait_deploy.engine import build, choose, cuda
from sait_deploy.engine.folder import Engine
from sait_deploy.engine.lowering import lower_parts, lowering_of
from sait_deploy.engine.manifest import NetworkInfo
from sait_deploy.engine.options import EngineOptions
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.process import BuildAnswer
from sait_deploy.engine.request import BuildRequest, PartAnswer, PartRequest
from sait_deploy.exporters.names import PACKED_NODE, AttentionForm, SelectionForm
from sait_deploy.runtime import Runner, load, tensorrt
from sait_deploy.system.progress import Progress
from tests.runtime.host_device import HostCuda, HostTensorRT

_VERSIONS: Final = {BuilderName.TENSORRT: "11.4.0", BuilderName.TENSORRT_RTX: "1.7.1"}


def build_on_host(
    place: Path, options: EngineOptions, asked: Callable[[BuildRequest], object] = lambda _: None
) -> Engine:
    """Builds an engine of the stand-in in the folder of an artifact; ``asked`` is called while its graphs are there."""

    def answer(request: BuildRequest, _: Progress) -> BuildAnswer:
        """Writes a plan that stands for each graph, and tells of its network what a builder would."""
        asked(request)
        return BuildAnswer(tuple(map(_part, request.parts)), (), None if request.targets else "stand-in")

    with pytest.MonkeyPatch.context() as patch:
        _on_stand_in(patch, HostTensorRT(_VERSIONS[BuilderName(options.builder.value)], HostCuda(), {}))
        patch.setattr(build, "run_builder", answer)
        return build.build_engine(place, options)


def load_on_host(engine: Engine, patch: pytest.MonkeyPatch, folder: Path) -> Runner:
    """Opens an engine of the stand-in on the stand-in device, which stays in place as long as the patch."""
    manifest = engine.manifest
    asked = lowering_of(manifest)
    runs = dataclasses.replace(asked, selection=SelectionForm.FUNCTION, attention=AttentionForm.FUSED_LENGTHS)
    graphs = []
    for name, lowering in (("asked", asked), ("runs", runs)):
        (folder / name).mkdir()
        graphs.append(lower_parts(engine.artifact, lowering, folder / name))
    package = HostTensorRT(
        manifest.builder_version, HostCuda(), {engine.plan_path(name): part.path for name, part in graphs[0].items()}
    )
    package.without_weights = manifest.stripped
    package.runnable = {part.path: graphs[1][name].path for name, part in graphs[0].items()}
    _on_stand_in(patch, package)
    return load(engine.artifact, manifest.builder)


def _on_stand_in(patch: pytest.MonkeyPatch, package: HostTensorRT) -> None:
    """Puts device and package in place of CUDA and TensorRT."""
    patch.setattr(cuda, "_runtime", lambda: package.cuda)
    modules: dict[ModuleType, str] = {choose: "import_builder", tensorrt: "load_package"}
    for module, name in modules.items():
        patch.setattr(module, name, lambda _: package)


def _part(part: PartRequest) -> PartAnswer:
    nodes = onnx.load(part.onnx, load_external_data=False).graph.node
    Path(part.plan).write_text(f"plan of {part.name} in {len(nodes)} nodes", encoding="utf-8")
    kinds = dict.fromkeys((node.op_type for node in nodes), 1)
    fused = sum(node.op_type in ("Attention", PACKED_NODE) for node in nodes)
    return PartAnswer(part.name, NetworkInfo(len(nodes), kinds, {}, fused), ("float16",), 0.1)
