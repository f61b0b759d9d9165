"""What tests of engines build, and how they look at the process that builds."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import MANIFEST_FILE, MODEL_FILE, Artifact
from sait_deploy.artifacts.manifest import Form, Manifest, TensorInfo
from sait_deploy.artifacts.pruning_info import KeptInfo, PointInfo
from sait_deploy.engine.folder import ENGINES_FOLDER, Engine, open_engine
from sait_deploy.engine.manifest import SCHEMA_VERSION, AttentionSummary, EngineManifest, NetworkInfo, PartInfo
from sait_deploy.engine.options import BatchRange, EngineOptions
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName, Profile, Range, parts_of, profiles
from sait_deploy.engine.request import BuildRequest, PartRequest
from sait_deploy.engine.trtexec import INPUTS_FOLDER
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, SelectionForm
from tests.exported import draft_adaptive

TARGET: Final = "sm89"
ONE_TARGET: Final = EngineOptions(targets=(TARGET,))
RTX, TRT = BuilderName.TENSORRT_RTX, BuilderName.TENSORRT
FUSABLE, UNFUSABLE = 16, 8
"""Head sizes that there is a fused attention for, and that there is none for."""


def builder_version() -> str:
    """The version of TensorRT for RTX, which has to be installed; the test is skipped where it is not."""
    module = pytest.importorskip("tensorrt_rtx")
    return str(module.__version__)


def attention_graph(head: int = FUSABLE, blocks: int = 1) -> onnx.ModelProto:
    """Blocks of products and one attention, float16 [batch, 2, tokens, head]: what builds fastest and is something."""
    nodes = [node for index in range(blocks) for node in _block(index)]
    return _graph(nodes, ("x0",), f"x{blocks}", head)


def bare_attention(head: int = UNFUSABLE, times: int = 1) -> onnx.ModelProto:
    """Attention alone; more than once, on the same keys and values, TensorRT for RTX 1.7.1 ends by SIGSEGV over it."""
    nodes = [helper.make_node("Attention", [f"x{i}", "k", "v"], [f"x{i + 1}"]) for i in range(times)]
    return _graph(nodes, ("x0", "k", "v"), f"x{times}", head)


def attention_on_rows() -> onnx.ModelProto:
    """One attention on packed rows [tokens, 2, 16], told where images begin, as NVIDIA documents it."""
    nodes = [helper.make_node("Add", [name, name], [f"{name}1"]) for name in ROWS[:3]]
    inputs = ["q1", "k1", "v1", "", "", "", "begins", "begins"]
    forms = {"query_form": "packed_nhd", "kv_form": "packed_nhd"}
    nodes.append(helper.make_node("TRT_Attention", inputs, ["y"], domain="trt", scale=0.25, **forms))
    half = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["tokens", 2, 16]) for name in (*ROWS[:3], "y")]
    begins = helper.make_tensor_value_info("begins", TensorProto.INT32, ["begins"])
    graph = helper.make_graph(nodes, "attention", [*half[:3], begins], half[3:])
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("trt", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=11)


ROWS: Final = ("q", "k", "v", "begins")


def rows_profile() -> Profile:
    """Shapes of ``attention_on_rows``."""
    rows = Range((1, 2, 16), (8, 2, 16), (64, 2, 16))
    return Profile(dict.fromkeys(ROWS[:3], rows) | {"begins": Range((2,), (3,), (9,))})


def _block(index: int) -> list[onnx.NodeProto]:
    parts = [f"{part}{index}" for part in "qkv"]
    products = [helper.make_node("MatMul", [f"x{index}", "weight"], [part]) for part in parts]
    return [*products, helper.make_node("Attention", parts, [f"x{index + 1}"])]


def _graph(nodes: list[onnx.NodeProto], inputs: tuple[str, ...], output: str, head: int) -> onnx.ModelProto:
    shape: list[str | int | None] = ["batch", 2, "tokens", head]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name in (*inputs, output)]
    weight = onnx.numpy_helper.from_array(np.eye(head, dtype=np.float16), "weight")
    graph = helper.make_graph(nodes, "attention", values[:-1], values[-1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def attention_profile(head: int = FUSABLE) -> Profile:
    return Profile(dict.fromkeys(("x0", "k", "v"), Range((1, 2, 4, head), (2, 2, 8, head), (4, 2, 16, head))))


def request_for(folder: Path, *graphs: onnx.ModelProto, head: int = FUSABLE, **changes: Any) -> BuildRequest:
    """Asks for an engine of each graph in the folder, as ``stem`` and so on."""
    parts = []
    for name, graph in zip(PartName, graphs, strict=False):
        onnx.save(graph, str(folder / f"{name}.onnx"))
        place = str(folder / f"{name}.plan")
        parts.append(PartRequest(name, str(folder / f"{name}.onnx"), place, (attention_profile(head),)))
    fields: dict[str, Any] = {
        "builder": RTX,
        "targets": (TARGET,),
        "parts": tuple(parts),
        "plugins": False,
        "workspace_bytes": None,
        "opt_level": None,
        "timing_cache": None,
        "portability": (),
        "strip_weights": False,
    }
    return BuildRequest(**{**fields, **changes})


def workers() -> list[int]:
    """Numbers of the building processes that this process has started and that still run."""
    mine = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    if not Path(mine).is_file():
        pytest.skip("this system does not tell a process's children")
    return [number for number in map(int, Path(mine).read_text().split()) if _is_worker(number)]


def _is_worker(number: int) -> bool:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"sait_deploy.engine.worker" in words


def marked(name: str, value: str) -> list[int]:
    """Numbers of the building processes that have this in their environment, whoever started them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{name}={value}".encode() in environment and _is_worker(int(folder.name)):
            found.append(int(folder.name))
    return found


def gone(name: str, value: str, seconds: float = 5) -> bool:
    """Whether no such process is left, after some time at most."""
    end = time.monotonic() + seconds
    while marked(name, value):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@functools.cache
def _draft() -> Manifest:
    return draft_adaptive()


def adaptive_manifest(
    patches: int = 16, prefix: int = 1, width: int = 32, points: tuple[tuple[float, int], ...] = ((8.0, 12),)
) -> Manifest:
    """An adaptive artifact's manifest with these sizes; of each point the mean and the most patch tokens kept."""
    base = _draft()
    geometry = dataclasses.replace(base.model.geometry, patch_tokens=patches, prefix_tokens=prefix, width=width)
    assert base.pruning is not None
    first = base.pruning.points[0]
    infos = tuple(
        PointInfo(f"p{index}", first.point, KeptInfo(24, mean, 1.0, mean, mean, most), first.macs)
        for index, (mean, most) in enumerate(points)
    )
    pruning = dataclasses.replace(base.pruning, points=infos)
    return dataclasses.replace(base, model=dataclasses.replace(base.model, geometry=geometry), pruning=pruning)


def engine_manifest(source: Manifest, **changes: Any) -> EngineManifest:
    """An engine's manifest as the builder of TensorRT for RTX makes it, files and hashes made up."""
    batch, builder = changes.get("batch", BatchRange()), changes.get("builder", RTX)
    spans = profiles(source, batch, builder)
    parts = tuple(_part(name, spans[name], source) for name in parts_of(source))
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": f"{builder}-1.2.3-{TARGET}-fp16",
        "artifact": source.id,
        "source_sha256": "0" * 64,
        "builder": builder,
        "builder_version": "1.2.3",
        "targets": (TARGET,),
        "gpu": None,
        "precision": EnginePrecision.FP16,
        "precisions_got": ("float16",),
        "selection": SelectionForm.FUNCTION,
        "attention": AttentionSummary(AttentionForm.FUSED, 3, 2, 2),
        "portability": (),
        "stripped": False,
        "batch": batch,
        "parts": parts,
        "files": {part.file: "1" * 64 for part in parts},
        "messages": ("a warning",),
        "tools": {"onnx": "1"},
    }
    return EngineManifest(**{**fields, **changes})


def _part(name: PartName, spans: tuple[Profile, ...], source: Manifest) -> PartInfo:
    tokens, width, patches = source.model.geometry.tokens, source.model.geometry.width, source.model.geometry
    height, across = source.model.image_size
    tensors = {
        "images": TensorInfo("images", "float32", ("batch", 3, height, across)),
        "mass": TensorInfo("mass", "float32", ("batch",)),
        "keep_limits": TensorInfo("keep_limits", "int32", ("batch", 2)),
        "tokens": TensorInfo("tokens", "float16", ("batch_tokens", width)),
        "rows": TensorInfo("rows", "int32", ("batch_tokens",)),
        "cu_seqlens": TensorInfo("cu_seqlens", "int32", ("batch_and_1",)),
        "guard": TensorInfo("guard", "float32", ("batch", 1)),
        "kept": TensorInfo("kept", "int32", ("kept_tokens",)),
        "lanes": TensorInfo("lanes", "int32", ("longest",)),
        "counts": TensorInfo("counts", "int32", ("batch",)),
        "logits": TensorInfo("logits", "float32", ("batch", source.model.classes)),
        "importance": TensorInfo("importance", "float32", ("batch", patches.patch_tokens)),
        "keep": TensorInfo("keep", "int32", ("batch", tokens)),
    }
    sides = {
        PartName.MODEL: (("images",), ("logits",)),
        PartName.STEM: (
            ("images", "mass", "keep_limits"),
            ("tokens", "rows", "cu_seqlens", "guard", "counts", "importance", "keep"),
        ),
        PartName.TRUNK: (("tokens", "cu_seqlens", "guard", "kept", "lanes"), ("logits",)),
    }[name]
    inputs, outputs = (tuple(tensors[tensor] for tensor in side) for side in sides)
    network = NetworkInfo(3, {"matrix_multiply": 2, "constant": 1}, {"float16": 3}, 1)
    return PartInfo(name, f"{name}.plan", 5, inputs, outputs, spans, network, 0.5)


def rewritten(engine: Engine, folder: Path | None = None, **changes: Any) -> Path:
    """Changes fields of an engine's manifest on disk, in another folder beside it where one is named; returns it."""
    place = engine.path if folder is None else folder
    if folder is not None:
        shutil.copytree(engine.path, folder)
    data = json.loads((place / MANIFEST_FILE).read_text(encoding="utf-8"))
    (place / MANIFEST_FILE).write_text(json.dumps({**data, **changes}), encoding="utf-8")
    return place


def copied_engine(engine: Engine, folder: Path) -> Engine:
    """A copy of an artifact with its engine, which may be changed."""
    artifact = Path(shutil.copytree(engine.artifact.path, folder / engine.artifact.path.name))
    place = artifact / engine.path.relative_to(engine.artifact.path)
    return Engine(Artifact(artifact, engine.artifact.manifest), place, engine.manifest)


def files_of(folder: Path) -> dict[str, str]:
    """Every file below a folder with its SHA-256, and every empty folder."""
    return {
        str(path.relative_to(folder)): sha256_of(path) if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def asked(**changes: Any) -> EngineOptions:
    """Options of an engine for one target, changed."""
    return dataclasses.replace(ONE_TARGET, **changes)


def check_what_it_says(engine: Engine, source: Artifact) -> None:
    """What holds of every engine."""
    manifest = engine.manifest
    assert open_engine(engine.artifact, engine.path) == engine
    assert engine.path == engine.artifact.path / ENGINES_FOLDER / manifest.name
    beside = {INPUTS_FOLDER} if source.manifest.form is Form.ADAPTIVE else set()
    assert {path.name for path in engine.path.iterdir()} == {"manifest.json", *manifest.files, *beside}
    assert manifest.artifact == source.manifest.id
    assert manifest.source_sha256 == sha256_of(source.path / MODEL_FILE)
    assert (manifest.builder, manifest.builder_version) == (RTX, builder_version())
    assert manifest.gpu is None
    assert not manifest.stripped
    assert manifest.tools.keys() == {"sait-deploy", "onnx", "onnx-ir", "onnx-graphsurgeon"}
    assert manifest.attention.fused == manifest.attention.expected
    assert manifest.attention.fused == sum(part.network.attention_fused for part in manifest.parts)
    for part in manifest.parts:
        assert part.size_bytes == engine.plan_path(part.name).stat().st_size > 1000
        assert {tensor.name for tensor in part.inputs} == set(part.profiles[0].ranges)
        assert part.network.layers == sum(part.network.kinds.values()) > 0
        assert part.build_seconds > 0
        for profile in part.profiles:
            for tensor in part.inputs:
                fixed = [size for size in tensor.shape if isinstance(size, int)]
                assert fixed == [
                    low
                    for low, size in zip(profile.ranges[tensor.name].smallest, tensor.shape, strict=True)
                    if isinstance(size, int)
                ]
