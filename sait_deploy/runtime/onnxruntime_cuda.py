"""ONNX Runtime on an NVIDIA GPU, whose own fused attention takes the place of the graph's."""

from __future__ import annotations

import onnx

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph import graph_of, lowering_errors
from sait_deploy.exporters.lower_cuda import fused_attention, lower_attention
from sait_deploy.runtime.onnxruntime import CUDA, OnnxRuntimeRunner, open_session, selection_trial
from sait_deploy.runtime.trials import try_convolution


def lowered(artifact: Artifact) -> onnx.ModelProto:
    """Returns the artifact's graph as it runs on a GPU, its external data left where it lies.

    Raises:
        ArtifactError: it is not one that exports write.
    """
    with lowering_errors(artifact):
        return lower_attention(graph_of(artifact))


def trial() -> str:
    """Selects tokens on the GPU as the reference does, and convolves, which loads cuDNN."""
    line = selection_trial(CUDA)
    try_convolution(lambda model, given: open_session(model, CUDA, None, "").run(None, dict(given)))
    return line


class OnnxRuntimeCudaRunner(OnnxRuntimeRunner):
    """An artifact on ONNX Runtime's CUDA provider."""

    runtime = "onnxruntime-cuda"
    provider = CUDA
    device = "cuda"

    @property
    def environment(self) -> dict[str, str]:
        """Versions and provider behind this runner, and how many attentions are fused."""
        fused = ", ".join(f"{count} {name}" for name, count in self._fused.items())
        return {**super().environment, "fused attention": fused or "none"}

    def _model(self) -> bytes:
        graph = self._graph()
        self._fused = fused_attention(graph)
        model: bytes = graph.SerializeToString()
        return model

    def _graph(self) -> onnx.ModelProto:
        return lowered(self.artifact)
