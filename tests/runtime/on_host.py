"""The torch-cuda runtime on a processor, as a runtime of its own, for what is made of runtimes."""

from __future__ import annotations

from typing import Final

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.runtime.cuda_graphs import OnHost
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import Runtime
from sait_deploy.runtime.torch_cuda import TorchCudaRunner

NAME: Final = "torch-cuda-on-host"


class OnHostRunner(TorchCudaRunner):
    """Runs the same steps with nothing compiled or recorded."""

    runtime = NAME

    def __init__(self, artifact: Artifact, options: RunOptions) -> None:
        super().__init__(artifact, options, OnHost)


ENTRY: Final = Runtime(
    module=__name__,
    runner="OnHostRunner",
    package="torch",
    extra="export",
    task="run the steps of torch-cuda on a processor",
    from_weights=True,
    precisions={Precision.FP32: (RunPrecision.BF16, RunPrecision.FP16)},
)
