"""A runtime from outside: the evaluator that comes with ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph import graph_of
from sait_deploy.artifacts.manifest import COUNTS
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.artifacts.pruning_info import PruningInfo
from sait_deploy.runtime.answers import RawOutput, Selection
from sait_deploy.runtime.base import Runner
from sait_deploy.runtime.graph_io import with_selection
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.trials import try_selection


def trial() -> str:
    """Selects tokens as the reference does."""

    def run(model: bytes, feeds: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        found: Sequence[NDArray[Any]] = ReferenceEvaluator(onnx.load_from_string(model)).run(None, dict(feeds))
        return found

    try_selection(run)
    return f"onnx {onnx.__version__}"


class EvaluatorRunner(Runner):
    """An artifact with a fixed point."""

    runtime = "onnx-evaluator"

    def __init__(self, artifact: Artifact, options: RunOptions) -> None:
        super().__init__(artifact)
        self._evaluator = ReferenceEvaluator(graph_of(artifact))

    def _execute(self, images: NDArray[np.float32], point: BatchPoint | None) -> RawOutput:
        names = self.artifact.manifest.output_names
        found = dict(zip(names, self._evaluator.run(list(names), {"images": images}), strict=True))
        return RawOutput(found[names[0]], found.get(COUNTS), None)

    def _execute_selection(self, images: NDArray[np.float32], point: BatchPoint | None) -> Selection:
        pruning = self.artifact.manifest.pruning
        assert isinstance(pruning, PruningInfo)
        evaluator = ReferenceEvaluator(with_selection(graph_of(self.artifact), pruning))
        names = [self.artifact.manifest.output_names[0], pruning.importance, pruning.keep]
        return Selection(*evaluator.run(names, {"images": images}))

    def _bound(self, images: NDArray[np.float32], point: BatchPoint | None) -> Callable[[], None]:
        def compute() -> None:
            self._execute(images, point)

        return compute
