"""What works on this machine: each part is tried for real, not looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from sait_deploy.errors import BuilderUnavailable, MissingDependency, RuntimeUnavailable


class State(StrEnum):
    """How a part came out of its trial."""

    WORKS = "works"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part, how it came out, and what to do about it."""

    part: str
    state: State
    detail: str
    hint: str


def _selection_in_onnxruntime(provider: str) -> str:
    """Runs the selection itself on a provider and compares it with the reference."""
    import onnx
    import onnxruntime as ort

    from sait_deploy.plugins.mass_token_select.onnx_function import function
    from sait_deploy.plugins.mass_token_select.reference import mass_token_select
    from sait_deploy.plugins.mass_token_select.spec import SPEC
    from sait_deploy.plugins.spec import DOMAIN, DOMAIN_VERSION

    if provider not in ort.get_available_providers():
        raise ModuleNotFoundError(f"onnxruntime {ort.__version__} has no {provider}")
    kinds = {"float": onnx.TensorProto.FLOAT, "int32": onnx.TensorProto.INT32}
    inputs = [
        onnx.helper.make_tensor_value_info(t.name, kinds[t.element_type], [None] * len(t.shape)) for t in SPEC.inputs
    ]
    outputs = [
        onnx.helper.make_tensor_value_info(t.name, kinds[t.element_type], [None] * len(t.shape)) for t in SPEC.outputs
    ]
    names = [t.name for t in SPEC.inputs], [t.name for t in SPEC.outputs]
    node = onnx.helper.make_node(SPEC.name, *names, domain=DOMAIN, prefix=1)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    graph = onnx.helper.make_graph([node], "trial", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=[function(20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} fell back to {session.get_providers()[0]}")
    importance = np.random.default_rng(0).dirichlet(np.ones(32), size=4).astype(np.float32)
    mass, limits = np.full(4, 0.8, np.float32), np.tile(np.array([[1, 32]], np.int32), (4, 1))
    keep, _ = session.run(None, dict(zip(names[0], (importance, mass, limits), strict=True)))
    if not np.array_equal(keep, mass_token_select(importance, mass, limits, 1)[0]):
        raise RuntimeError("the selection differs from the reference")
    return f"onnxruntime {ort.__version__}, selection as the reference"


def _cpu() -> str:
    return _selection_in_onnxruntime("CPUExecutionProvider")


def _cuda() -> str:
    return _selection_in_onnxruntime("CUDAExecutionProvider")


def _torch() -> str:
    import torch

    if not torch.equal(torch.ones(2, 2) @ torch.ones(2, 2), torch.full((2, 2), 2.0)):
        raise RuntimeError("a matrix product is wrong")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return f"torch {torch.__version__}, {device}"


def _export() -> str:
    import onnxscript
    import timm

    from sait_deploy.models.registry import supported_names

    return f"timm {timm.__version__}, onnxscript {onnxscript.__version__}, {len(supported_names())} models"


def _demonstration() -> str:
    from sait_deploy import demo
    from sait_deploy.images.dataset import shipped_dataset

    if not demo.WEIGHTS.is_file():
        raise RuntimeError(f"{demo.WEIGHTS.name} is not there")
    return f"weights and {len(shipped_dataset(demo.NAME).images)} images are there"


def _digits() -> str:
    import sklearn

    from sait_deploy.demo.data import Split, compose_many

    compose_many(Split.HELD_OUT, 1, seed=0)
    return f"scikit-learn {sklearn.__version__}"


def _builds(name: str) -> str:
    """Builds the engine of a single product, in the process that real builds run in."""
    import tempfile
    from pathlib import Path

    import onnx

    from sait_deploy.engine.builder import import_builder
    from sait_deploy.engine.choose import choose_builder
    from sait_deploy.engine.options import BuilderChoice, BuilderName, EngineOptions
    from sait_deploy.engine.process import run_builder
    from sait_deploy.engine.profiles import PartName, Profile, Range
    from sait_deploy.engine.request import BuildRequest, PartRequest

    builder = BuilderName(name)
    import_builder(builder)
    chosen = choose_builder(EngineOptions(builder=BuilderChoice(name)))
    value = onnx.helper.make_tensor_value_info
    sides = {name: value(name, onnx.TensorProto.FLOAT, ["batch", 8, 8]) for name in ("x", "y", "z")}
    product = onnx.helper.make_node("MatMul", ["x", "y"], ["z"])
    graph = onnx.helper.make_graph([product], "trial", [sides["x"], sides["y"]], [sides["z"]])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    span = Range((1, 8, 8), (2, 8, 8), (4, 8, 8))
    with tempfile.TemporaryDirectory() as folder:
        source, plan = Path(folder) / "trial.onnx", Path(folder) / "trial.plan"
        onnx.save(model, source)
        part = PartRequest(PartName.MODEL, str(source), str(plan), (Profile({"x": span, "y": span}),))
        targets = chosen.targets if builder is BuilderName.TENSORRT_RTX else ()
        run_builder(
            BuildRequest(
                builder=builder,
                targets=targets,
                parts=(part,),
                plugins=False,
                workspace_bytes=None,
                opt_level=None,
                timing_cache=None,
                portability=(),
                strip_weights=False,
            ),
            lambda *_: None,
        )
        size = plan.stat().st_size
    return f"{name} {chosen.version}, an engine of {size} bytes for {', '.join(chosen.targets)}"


def _tensorrt() -> str:
    return _builds("tensorrt")


def _tensorrt_rtx() -> str:
    return _builds("tensorrt-rtx")


def _gpu() -> str:
    from sait_deploy.engine.cuda import DeviceBuffer, Stream, device

    found, stream = device(), Stream()
    sent, back = np.arange(16, dtype=np.int32), np.zeros(16, dtype=np.int32)
    buffer = DeviceBuffer(sent.nbytes)
    stream.upload(buffer.address, sent)
    stream.download(back, buffer.address)
    stream.synchronize()
    if not np.array_equal(sent, back):
        raise RuntimeError("what was copied to the GPU came back different")
    return f"{found.name}, {found.target}"


_TRIALS: Final[tuple[tuple[str, Callable[[], str], str], ...]] = (
    ("run on ONNX Runtime CPU", _cpu, "pip install 'sait-deploy[cpu]'"),
    ("run on ONNX Runtime CUDA", _cuda, "pip install 'sait-deploy[gpu]' in place of [cpu], on a machine with a GPU"),
    ("run in torch", _torch, "pip install 'sait-deploy[export]'"),
    ("export", _export, "pip install 'sait-deploy[export,cpu]'"),
    ("demonstration model", _demonstration, "reinstall sait-deploy"),
    ("demonstration's thousand images", _digits, "pip install 'sait-deploy[train]'"),
    ("build with TensorRT", _tensorrt, "pip install 'sait-deploy[tensorrt]', on a machine with a GPU"),
    ("build with TensorRT for RTX", _tensorrt_rtx, "pip install 'sait-deploy[rtx]'"),
    ("reach a GPU", _gpu, "pip install 'sait-deploy[rtx]', on a machine with an NVIDIA GPU and its driver"),
)


def examine() -> list[Finding]:
    """Tries every part and returns what came of it."""
    findings = []
    for part, trial, hint in _TRIALS:
        try:
            findings.append(Finding(part, State.WORKS, trial(), ""))
        # any other ImportError is of a package that is there and broken
        except (ModuleNotFoundError, MissingDependency, BuilderUnavailable, RuntimeUnavailable) as error:
            findings.append(Finding(part, State.MISSING, (str(error).splitlines() or [""])[0], hint))
        except Exception as error:  # whatever a broken installation raises is the finding
            first = (str(error).splitlines() or [type(error).__name__])[0]
            findings.append(Finding(part, State.BROKEN, first[:160], hint))
    return findings
