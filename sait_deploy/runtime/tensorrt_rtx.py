"""TensorRT for RTX: as TensorRT, but it records CUDA graphs itself and compiles kernels for the shapes it meets."""

from __future__ import annotations

from typing import Any

from sait_deploy.engine.packages import BuilderName
from sait_deploy.engine.profiles import PartName
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

    @property
    def _recording(self) -> str:
        return super()._recording if self._second is not None else "by the runtime"

    def _context(self, engine: Any, part: PartName) -> Any:
        """Returns an execution context of a part's engine.

        This runtime can compile kernels for the shapes it meets. A trunk meets other shapes in nearly every batch, for
        which that would never pay; the other parts have one shape for each batch size.
        """
        config, strategies = engine.create_runtime_config(), self._trt.DynamicShapesKernelSpecializationStrategy
        if part is PartName.MODEL:
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = (
            strategies.NONE if part is PartName.TRUNK else strategies.EAGER
        )
        return engine.create_execution_context(config)
