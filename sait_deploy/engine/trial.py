"""A small engine, which ``doctor`` has a builder build."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from sait_deploy.engine.choose import choose_builder
from sait_deploy.engine.options import BuilderChoice, EngineOptions
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.process import run_builder
from sait_deploy.engine.profiles import PartName, Profile, Range
from sait_deploy.engine.request import BuildRequest, PartRequest
from sait_deploy.system.progress import no_progress
from sait_deploy.system.scratch import scratch_folder


def build_trial(builder: BuilderName) -> str:
    """Builds the engine of a single product in the process that real builds run in, and returns a line on it.

    Raises:
        BuilderUnavailable: the builder is not installed, or needs a GPU that is not there.
        EngineError: it built no engine.
    """
    chosen = choose_builder(EngineOptions(builder=BuilderChoice(builder.value)))
    span = Range((1, 8, 8), (2, 8, 8), (4, 8, 8))
    with scratch_folder() as folder:
        source, plan = folder / "trial.onnx", folder / "trial.plan"
        onnx.save(_product(), source)
        request = BuildRequest(
            builder=builder,
            targets=chosen.targets if builder is BuilderName.TENSORRT_RTX else (),
            parts=(PartRequest(PartName.MODEL, str(source), str(plan), (Profile({"x": span, "y": span}),)),),
            plugins=False,
            workspace_bytes=None,
            opt_level=None,
            timing_cache=None,
            portability=(),
            strip_weights=False,
        )
        run_builder(request, no_progress)
        size = plan.stat().st_size
    return f"{builder} {chosen.version}, an engine of {size} bytes for {', '.join(chosen.targets)}"


def _product() -> onnx.ModelProto:
    x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8, 8]) for name in ("x", "y", "z"))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "y"], ["z"])], "trial", [x, y], [z])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
