"""Running artifacts: ``load`` gives a runner for an artifact on a runtime, and every runner answers the same way."""

from __future__ import annotations

from sait_deploy.artifacts.folder import ArtifactLike, open_artifact
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.answers import Output, Prediction, Selection
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.registry import ONNXRUNTIME, find_runtime

__all__ = ["Output", "Prediction", "RunOptions", "Runner", "Selection", "load"]


def load(artifact: ArtifactLike, runtime: str = ONNXRUNTIME, options: RunOptions = RunOptions()) -> Runner:
    """Opens an artifact on a runtime, after checking its files against its manifest.

    Example::

        runner = sait_deploy.load("artifacts/sait_demo_digits-density0.6", "onnxruntime", RunOptions(threads=2))
        output = runner.run(runner.preprocess(["photo.png"]))

    Args:
        artifact: an artifact folder.
        runtime: ``onnxruntime`` (CPU), ``openvino``, ``onnxruntime-cuda``, ``tensorrt``, ``tensorrt-rtx``, ``torch``,
            ``torch-cuda`` or another name in ``runtime.registry.RUNTIMES``; the two TensorRT ones run the newest engine
            that fits this machine.
        options: threads, precision, device and, for torch, where the weights are.

    Raises:
        InvalidArgument: no such runtime, or options that are none.
        ArtifactError: the artifact is missing, damaged or not what its manifest says.
        MissingDependency: the runtime's package is not installed.
        RuntimeUnavailable: the runtime or its device does not work here.
    """
    entry = find_runtime(runtime)
    if not isinstance(options, RunOptions):
        raise InvalidArgument(f"{options!r} are no options of a run", "leave them out, or give RunOptions")
    return entry.open(open_artifact(artifact), options)
