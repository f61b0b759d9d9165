"""The runtimes, one entry each. To add one, write its module and its entry; everything that names runtimes reads these.

No runtime's package is imported here: an entry names its module, which is imported when that runtime is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from sait_deploy.artifacts.manifest import Precision
from sait_deploy.engine.packages import PACKAGES, BuilderName
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.system.telemetry import import_runtime

if TYPE_CHECKING:
    from sait_deploy.artifacts.folder import Artifact
    from sait_deploy.runtime.base import Runner
    from sait_deploy.runtime.options import RunOptions

ONNXRUNTIME: Final = "onnxruntime"
"""The runtime that artifacts run on unless another is named, as it runs wherever artifacts are."""

OPENVINO: Final = "openvino"
"""The other runtime for processors, which also runs in bf16."""

TORCH: Final = "torch"
"""The runtime that runs the model itself, from the weights that an artifact was exported from."""

TORCH_CUDA: Final = "torch-cuda"
"""torch again, as fast as an NVIDIA GPU runs the model."""

DEFAULT_DEVICE: Final = "cpu"
"""The device of runtimes that have several, where none is named; the others run on one kind of device alone."""


def is_default_device(device: str) -> bool:
    """Returns whether a device's name, in capitals or not, is that of the default."""
    return device.lower() == DEFAULT_DEVICE


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the rest of the toolkit has to know of a runtime.

    The module defines the class of its runners and ``trial()``, which tries the runtime on this machine, returns a line
    on what works, and raises an error that says what does not. How graphs are lowered for the runtime, and what else
    only it knows, stands in that module too.

    Attributes:
        module: import name of its module.
        runner: name of the class of its runners there, which is made of an artifact and ``RunOptions``.
        part: name of the class there that runs one graph of an artifact cut at its seam (``runtime.parts``); empty
            where the runtime runs artifacts whole alone. Engines are cut when they are built: of their runtimes, the
            class whose ``run_part`` runs either part, empty where that is ``runner``.
        package: import name of the package that it needs.
        extra: the extra of sait-deploy that installs the package.
        task: what ``trial()`` tries, in words.
        also_needed: what the machine needs in addition to the extra, in words that follow the command to install it.
        builder: the builder whose engines it runs; None where it needs no engine.
        from_weights: whether it runs the model in torch from the weights, not the artifact's graph.
        own_threads: whether each runner has threads of its own, so that two runners in one process can have different
            numbers of threads.
        has_devices: whether ``RunOptions.device`` chooses where it runs; the others run on one kind of device.
        on_gpu: whether it runs on an NVIDIA GPU, and nowhere else.
        compared_with: name of the runtime that ``bench`` compares kept tokens and answers with.
        precisions: artifact precision to the precisions that the runtime can run such an artifact in, its own first;
            an engine has one of them.
    """

    module: str
    runner: str
    package: str
    extra: str
    task: str
    also_needed: str = ""
    part: str = ""
    builder: BuilderName | None = None
    from_weights: bool = False
    own_threads: bool = False
    has_devices: bool = False
    on_gpu: bool = False
    compared_with: str = ONNXRUNTIME
    precisions: Mapping[Precision, tuple[RunPrecision, ...]] = field(default_factory=lambda: _AS_EXPORTED)

    @property
    def installation(self) -> str:
        """What to do to have this runtime, in words."""
        return f"pip install 'sait-deploy[{self.extra}]'{self.also_needed}"

    @property
    def cuts(self) -> bool:
        """Whether it runs adaptive artifacts cut at their seam."""
        return bool(self.part) or self.builder is not None

    def trial(self) -> str:
        """Tries the runtime on this machine and returns a line on what works.

        Raises:
            Exception: whatever the runtime raises where it does not work.
        """
        import_runtime(self.package)  # what is wrong with the package itself comes first, in its own words
        return cast("str", importlib.import_module(self.module).trial())

    def open(self, artifact: Artifact, options: RunOptions) -> Runner:
        """Returns a runner of an artifact, which was checked before.

        Raises:
            InvalidArgument: the runtime runs no artifact of this precision, or not in the precision asked for, or not
                on that device.
            ArtifactError: the artifact has nothing that this runtime can run.
            MissingDependency: the runtime's package is not installed.
            RuntimeUnavailable: the runtime or its device does not work here.
        """
        self.check(artifact, options)
        made: Callable[[Artifact, RunOptions], Runner] = getattr(importlib.import_module(self.module), self.runner)
        return made(artifact, options)

    def check(self, artifact: Artifact, options: RunOptions) -> None:
        """Checks that the runtime runs such artifacts as the options say.

        Raises:
            InvalidArgument: not in the precision asked for, or not on that device.
        """
        self._check_precision(artifact, options.precision)
        self.check_device(options.device)

    def check_device(self, device: str) -> None:
        """Refuses a device where the runtime has no choice; whether one of those that have it is there shows later.

        Raises:
            InvalidArgument: it is not the default one, and the runtime runs on one kind of device alone.
        """
        if not (self.has_devices or is_default_device(device)):
            able = ", ".join(name for name, runtime in RUNTIMES.items() if runtime.has_devices)
            raise InvalidArgument(f"{self._name} runs on one kind of device alone, not on {device!r}", f"use {able}")

    @property
    def _name(self) -> str:
        return next((name for name, runtime in RUNTIMES.items() if runtime is self), self.package)

    def _check_precision(self, artifact: Artifact, asked: RunPrecision | None) -> None:
        held = artifact.manifest.dtype
        possible = self.precisions.get(held, ())
        if possible and (asked is None or asked in possible):
            return
        if not possible:
            able = ", ".join(other for other, runtime in RUNTIMES.items() if held in runtime.precisions)
            raise InvalidArgument(f"{self._name} runs no {held} artifact such as {artifact.path.name}", f"use {able}")
        raise InvalidArgument(
            f"{self._name} cannot run {artifact.path.name}, which is {held}, in {asked}", f"use {', '.join(possible)}"
        )


_AS_EXPORTED: Final[Mapping[Precision, tuple[RunPrecision, ...]]] = {
    Precision.FP32: (RunPrecision.FP32,),
    Precision.FP16: (RunPrecision.FP16,),
}

_AS_FILED: Final[Mapping[Precision, tuple[RunPrecision, ...]]] = {
    **_AS_EXPORTED,
    Precision.INT8: (RunPrecision.INT8,),
}

_AS_HINTED: Final[Mapping[Precision, tuple[RunPrecision, ...]]] = {
    Precision.FP32: (RunPrecision.FP32, RunPrecision.BF16, RunPrecision.FP16),
    Precision.FP16: (RunPrecision.FP16, RunPrecision.FP32, RunPrecision.BF16),
    Precision.INT8: (RunPrecision.INT8, RunPrecision.INT8_BF16),
}

_IN_HALF: Final[Mapping[Precision, tuple[RunPrecision, ...]]] = {
    Precision.FP32: (RunPrecision.BF16, RunPrecision.FP16),
    Precision.FP16: (RunPrecision.FP16, RunPrecision.BF16),
}

_AS_BUILT: Final[Mapping[Precision, tuple[RunPrecision, ...]]] = {
    Precision.FP32: (RunPrecision.FP16, RunPrecision.BF16, RunPrecision.FP32),
    Precision.FP16: (RunPrecision.FP16,),
    Precision.INT8: (RunPrecision.INT8_FP16, RunPrecision.INT8_BF16, RunPrecision.INT8),
}


RUNTIMES: Final[dict[str, Runtime]] = {
    ONNXRUNTIME: Runtime(
        module="sait_deploy.runtime.onnxruntime",
        runner="OnnxRuntimeRunner",
        package="onnxruntime",
        extra="cpu",
        task="run on ONNX Runtime CPU",
        part="OnnxRuntimePart",
        own_threads=True,
        compared_with=TORCH,
        precisions=_AS_FILED,
    ),
    OPENVINO: Runtime(
        module="sait_deploy.runtime.openvino",
        runner="OpenVinoRunner",
        package="openvino",
        extra="openvino",
        task="run on OpenVINO",
        part="OpenVinoPart",
        own_threads=True,
        has_devices=True,
        precisions=_AS_HINTED,
    ),
    "onnxruntime-cuda": Runtime(
        module="sait_deploy.runtime.onnxruntime_cuda",
        runner="OnnxRuntimeCudaRunner",
        package="onnxruntime",
        extra="gpu",
        task="run on ONNX Runtime CUDA",
        also_needed=" in place of [cpu], on a machine with a GPU",
        on_gpu=True,
    ),
    "tensorrt": Runtime(
        module="sait_deploy.runtime.tensorrt",
        runner="TensorRTRunner",
        package=PACKAGES[BuilderName.TENSORRT].name,
        extra=PACKAGES[BuilderName.TENSORRT].extra,
        task="build with TensorRT",
        also_needed=", on a machine with a GPU",
        builder=BuilderName.TENSORRT,
        on_gpu=True,
        precisions=_AS_BUILT,
    ),
    "tensorrt-rtx": Runtime(
        module="sait_deploy.runtime.tensorrt_rtx",
        runner="TensorRTForRTXRunner",
        part="TensorRTForRTXParts",
        package=PACKAGES[BuilderName.TENSORRT_RTX].name,
        extra=PACKAGES[BuilderName.TENSORRT_RTX].extra,
        task="build with TensorRT for RTX",
        builder=BuilderName.TENSORRT_RTX,
        on_gpu=True,
        precisions=_AS_BUILT,
    ),
    TORCH: Runtime(
        module="sait_deploy.runtime.torch",
        runner="TorchRunner",
        package="torch",
        extra="export",
        task="run in torch",
        has_devices=True,
        from_weights=True,
    ),
    TORCH_CUDA: Runtime(
        module="sait_deploy.runtime.torch_cuda",
        runner="TorchCudaRunner",
        package="torch",
        extra="export",
        task="run in torch, compiled for a GPU",
        also_needed=", on a machine with an NVIDIA GPU",
        from_weights=True,
        on_gpu=True,
        precisions=_IN_HALF,
    ),
}
"""Name to runtime, in the order in which they are listed and measured."""


def find_runtime(name: str) -> Runtime:
    """Returns the runtime of a name.

    Raises:
        InvalidArgument: no runtime has it.
    """
    if not isinstance(name, str) or name not in RUNTIMES:
        raise InvalidArgument(f"unknown runtime {name!r}", f"known are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
