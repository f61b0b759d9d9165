"""TensorRT for RTX: as TensorRT, but it records CUDA graphs itself and compiles kernels for the shapes it meets."""

from __future__ import annotations

import functools
import json
from collections.abc import Container, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName
from sait_deploy.runtime.answers import RawOutput
from sait_deploy.runtime.compiled_files import COMPILED_FOLDER, digest
from sait_deploy.runtime.engine_buffers import Extents
from sait_deploy.runtime.rtx_kernels import KeptKernels
from sait_deploy.runtime.tensorrt import TensorRTRunner
from sait_deploy.runtime.token_buckets import bucket_of, lanes_of


def trial() -> str:
    """Builds a small engine, for which no GPU is needed."""
    from sait_deploy.engine.trial import build_trial

    return build_trial(BuilderName.TENSORRT_RTX)


class TensorRTForRTXRunner(TensorRTRunner):
    """An artifact's engine in TensorRT for RTX.

    This runtime compiles kernels for the shapes that it meets, and records their work. A batch size has one shape
    before the seam; behind it, rows and lanes are rounded up, so that batches have few.
    """

    runtime = "tensorrt-rtx"
    builder = BuilderName.TENSORRT_RTX
    records = False
    waits_for_kernels: ClassVar[bool] = True
    """Whether the first request of some shapes waits for their kernels, so that a measurement is of those alone."""

    @property
    def environment(self) -> dict[str, str]:
        """Versions, device and engine behind this runner."""
        made = "all" if self._has_few_shapes(PartName.TRUNK) else "the stem's"
        return {**super().environment, "kernels made for the shapes": made}

    def rounded(self, images: int, extents: Extents) -> Extents:
        """Returns with how many rows and lanes the trunk runs a batch that keeps ``extents``: a bucket of each."""
        if not self.engine.manifest.spare_rows:
            return extents
        tokens = self._tensors.geometry.tokens
        return Extents(bucket_of(extents.rows, images * tokens), lanes_of(extents.longest, tokens))

    def _has_few_shapes(self, part: PartName) -> bool:
        """Whether kernels are worth compiling for each shape of a part: not for a trunk that takes no spare rows."""
        cut = len(self.engine.manifest.parts) > 1
        return part is not PartName.TRUNK or not cut or self.engine.manifest.spare_rows

    @functools.cached_property
    def _kernels(self) -> KeptKernels:
        files = json.dumps(self.engine.manifest.files, sort_keys=True)
        return KeptKernels(self.artifact.path / COMPILED_FOLDER, f"{self.runtime}-{digest(files.encode())}")

    @property
    def _recording(self) -> str:
        if self._second is None:
            return "by the runtime"
        return f"by the runtime, of {'stem and trunk' if self._has_few_shapes(PartName.TRUNK) else 'the stem alone'}"

    def _context(self, engine: Any, part: PartName) -> Any:
        """Returns an execution context of a part's engine; None where TensorRT makes none."""
        config, strategies = engine.create_runtime_config(), self._trt.DynamicShapesKernelSpecializationStrategy
        self._kernels.attach(config, part)
        few = self._has_few_shapes(part)
        if few:
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        compiled = strategies.EAGER if self.waits_for_kernels else strategies.LAZY
        config.dynamic_shapes_kernel_specialization_strategy = compiled if few else strategies.NONE
        return engine.create_execution_context(config)

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        found = super()._execute(images, point)
        self._kernels.keep(self._ran)
        return found


class TensorRTForRTXParts(TensorRTForRTXRunner):
    """Both parts of an engine, each run alone by ``run_part``, as servers do.

    A server's batches are of all sizes, so shapes are many more: until their kernels are compiled, requests run on
    those for any shape. What was compiled is kept when the next new shapes are met.
    """

    waits_for_kernels = False

    def run_part(
        self, part: PartName, given: Mapping[str, NDArray[Any]], wanted: Container[str]
    ) -> dict[str, NDArray[Any]]:
        """Runs the stem or the trunk alone. Takes, returns and raises what ``TensorRTRunner.run_part`` does."""
        found = super().run_part(part, given, wanted)
        self._kernels.keep((part, *(len(array) for array in given.values())))
        return found
