"""An artifact cut at its seam in process: a runtime's stem and trunk, with the host between them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph import graph_of, lowering_errors
from sait_deploy.artifacts.manifest import Form
from sait_deploy.engine.profiles import PartName
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import CU_SEQLENS, KEPT, LANES, ROWS
from sait_deploy.runtime.engine_buffers import Extents, seam_of
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.registry import RUNTIMES, Runtime, find_runtime
from sait_deploy.tokens import most_images

if TYPE_CHECKING:
    from sait_deploy.runtime.tensorrt import TensorRTRunner


class Part(Protocol):
    """One of the two graphs, ready to run."""

    def run_part(self, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph on its inputs by name, and returns its outputs by name.

        Raises:
            RuntimeUnavailable: the runtime cannot run this batch.
        """

    def extents(self, images: int, rows: int, longest: int) -> tuple[int, int]:
        """Returns with how many packed rows and lanes to run a batch that keeps ``rows``, ``longest`` in one image.

        Further rows repeat any token of the batch, and further lanes are numbered on; neither changes an answer.
        """


@dataclass(frozen=True, slots=True)
class CutArtifact:
    """A stem and a trunk.

    Attributes:
        stem: from images and operating points to the seam's tensors.
        trunk: from the seam's tensors to the answer.
        trunk_inputs: those of the seam's tensors that the trunk reads.
        batch_range: the fewest and the most images that either takes.
    """

    stem: Part
    trunk: Part
    trunk_inputs: tuple[str, ...]
    batch_range: tuple[int, int]


def why_whole(artifact: Artifact, runtime: str) -> str:
    """Returns why an artifact cannot be cut on a runtime, and what could be, in words; empty where it can be."""
    manifest = artifact.manifest
    if manifest.form is not Form.ADAPTIVE:
        return f"a {manifest.form} artifact has no seam; one exported with --mass has"
    if manifest.inlined:
        return "it was exported with --inline, which leaves no seam; export it without"
    return "" if find_runtime(runtime).cuts else f"{runtime} runs artifacts whole; {_able()} cut them"


def _able() -> str:
    return ", ".join(name for name, one in RUNTIMES.items() if one.cuts)


def open_cut(artifact: Artifact, runtime: str, options: RunOptions) -> CutArtifact:
    """Cuts an adaptive artifact at its seam and opens both parts on a runtime.

    Args:
        artifact: checked before; its folder is left as it is, but for what the runtime keeps there of its own.
        runtime: name of the runtime.
        options: threads, precision and device of both parts.

    Raises:
        InvalidArgument: the artifact or the runtime cannot be cut, or not in that precision or on that device.
        ArtifactError: the graph cannot be cut, or there is no engine of the runtime's.
        MissingDependency: the runtime's package is not installed.
        RuntimeUnavailable: the runtime or its device does not work here.
    """
    reason = why_whole(artifact, runtime)
    if reason:
        raise InvalidArgument(f"{artifact.path.name} cannot be cut: {reason}")
    entry = find_runtime(runtime)
    entry.check(artifact, options)
    if entry.builder is not None:
        return _open_engine(artifact, entry, options)
    return _open_graphs(artifact, entry, options)


def _open_graphs(artifact: Artifact, entry: Runtime, options: RunOptions) -> CutArtifact:
    from sait_deploy.exporters.cut import cut

    made: Callable[..., Part] = getattr(importlib.import_module(entry.module), entry.part)
    with lowering_errors(artifact):
        parts = cut(graph_of(artifact))
    stem = made(artifact, options, parts.stem, "stem")
    inputs = tuple(tensor.name for tensor in parts.trunk.graph.input)
    assert CU_SEQLENS in inputs
    most = most_images(artifact.manifest.model.geometry)
    return CutArtifact(stem, made(artifact, options, parts.trunk, "trunk"), inputs, (1, most))


def _open_engine(artifact: Artifact, entry: Runtime, options: RunOptions) -> CutArtifact:
    from sait_deploy.runtime.tensorrt import TensorRTRunner

    runner = getattr(importlib.import_module(entry.module), entry.part or entry.runner)(artifact, options)
    assert isinstance(runner, TensorRTRunner)
    crossing = seam_of(runner.engine.manifest)
    stem = _EnginePart(runner, PartName.STEM, frozenset({*crossing, ROWS, CU_SEQLENS}))
    trunk = _EnginePart(runner, PartName.TRUNK, frozenset(artifact.manifest.output_names))
    return CutArtifact(stem, trunk, (*crossing, KEPT, LANES), runner.batch_range)


class _EnginePart:
    """One part of an engine, whose inputs and outputs lie in the host's memory: batches are made anew at the seam."""

    def __init__(self, runner: TensorRTRunner, part: PartName, wanted: frozenset[str]) -> None:
        self._runner, self._part, self._wanted = runner, part, wanted

    def run_part(self, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the part on its inputs by name, and returns its outputs by name."""
        return self._runner.run_part(self._part, given, self._wanted)

    def extents(self, images: int, rows: int, longest: int) -> tuple[int, int]:
        """Returns the numbers of packed rows and lanes to run a batch with: those that the engine's runtime runs."""
        rounded = self._runner.rounded(images, Extents(rows, longest))
        return rounded.rows, rounded.longest
