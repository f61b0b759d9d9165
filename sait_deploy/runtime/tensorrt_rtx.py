"""TensorRT for RTX: as TensorRT, but it records CUDA graphs itself and compiles kernels for the shapes it meets."""

from __future__ import annotations

import functools
import json
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName
from sait_deploy.runtime.answers import RawOutput
from sait_deploy.runtime.compiled_files import COMPILED_FOLDER, digest
from sait_deploy.runtime.graph_io import batch_of
from sait_deploy.runtime.rtx_kernels import KeptKernels
from sait_deploy.runtime.tensorrt import TensorRTRunner


def trial() -> str:
    """Builds a small engine, for which no GPU is needed."""
    from sait_deploy.engine.trial import build_trial

    return build_trial(BuilderName.TENSORRT_RTX)


class TensorRTForRTXRunner(TensorRTRunner):
    """An artifact's engine in TensorRT for RTX."""

    runtime = "tensorrt-rtx"
    builder = BuilderName.TENSORRT_RTX
    records = False

    @property
    def environment(self) -> dict[str, str]:
        """Versions, device and engine behind this runner."""
        made = "all" if self._second is None else "the stem's"
        return {**super().environment, "kernels made for the shapes": made}

    @functools.cached_property
    def _kernels(self) -> KeptKernels:
        files = json.dumps(self.engine.manifest.files, sort_keys=True)
        return KeptKernels(self.artifact.path / COMPILED_FOLDER, f"{self.runtime}-{digest(files.encode())}")

    @property
    def _recording(self) -> str:
        return super()._recording if self._second is not None else "by the runtime"

    def _context(self, engine: Any, part: PartName) -> Any:
        """Returns an execution context of a part's engine.

        This runtime can compile kernels for the shapes it meets. A trunk meets other shapes in nearly every batch, for
        which that would never pay; the other parts have one shape for each batch size.
        """
        config, strategies = engine.create_runtime_config(), self._trt.DynamicShapesKernelSpecializationStrategy
        self._kernels.attach(config, part)
        if part is PartName.MODEL:
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = (
            strategies.NONE if part is PartName.TRUNK else strategies.EAGER
        )
        return engine.create_execution_context(config)

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        found = super()._execute(images, point)
        self._kernels.keep(len(images))
        return found

    def run_part(
        self, part: PartName, given: Mapping[str, NDArray[Any]], wanted: Container[str]
    ) -> dict[str, NDArray[Any]]:
        """Runs the stem or the trunk alone. Takes, returns and raises what ``TensorRTRunner.run_part`` does."""
        found = super().run_part(part, given, wanted)
        self._kernels.keep(batch_of(given))
        return found
