"""Running artifacts: ``load`` gives a runner for an artifact on a runtime, and every runner answers the same way."""

from __future__ import annotations

import os

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.base import Output, Prediction, Runner, RunOptions, RuntimeName, Selection

__all__ = ["Output", "Prediction", "RunOptions", "Runner", "RuntimeName", "Selection", "load"]


def load(
    artifact: Artifact | str | os.PathLike[str],
    runtime: RuntimeName | str = RuntimeName.ONNXRUNTIME,
    options: RunOptions = RunOptions(),
) -> Runner:
    """Opens an artifact on a runtime, after checking its files against its manifest.

    Args:
        artifact: an artifact folder.
        runtime: ``onnxruntime`` (CPU), ``onnxruntime-cuda``, ``tensorrt``, ``tensorrt-rtx`` or ``torch``; the two
            TensorRT ones run the engine built last of those that fit this machine.
        options: threads and, for torch, where the weights are.

    Raises:
        InvalidArgument: no such runtime.
        ArtifactError: the artifact is missing, damaged or not what its manifest says.
        MissingDependency: the runtime's package is not installed.
        RuntimeUnavailable: the runtime or its device does not work here.
    """
    try:
        name = RuntimeName(runtime)
    except ValueError:
        known = ", ".join(RuntimeName)
        raise InvalidArgument(f"unknown runtime {str(runtime)!r}", f"known are {known}") from None
    opened = artifact if isinstance(artifact, Artifact) else open_artifact(artifact)
    if name is RuntimeName.TORCH:
        from sait_deploy.runtime.torch import TorchRunner

        return TorchRunner(opened, options)
    if name in (RuntimeName.TENSORRT, RuntimeName.TENSORRT_RTX):
        from sait_deploy.runtime.tensorrt import TensorRTRunner

        return TensorRTRunner(opened, name)
    from sait_deploy.runtime.onnxruntime import OnnxRuntimeRunner

    return OnnxRuntimeRunner(opened, name, options)
