"""An artifact cut at its seam in process: a runtime's stem and trunk, with the host between them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph import graph_of
from sait_deploy.artifacts.manifest import Form
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import CU_SEQLENS
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.registry import RUNTIMES, find_runtime


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
    """

    stem: Part
    trunk: Part
    trunk_inputs: tuple[str, ...]


def why_whole(artifact: Artifact, runtime: str) -> str:
    """Returns why an artifact cannot be cut on a runtime, in words; empty where it can be."""
    manifest = artifact.manifest
    if manifest.form is not Form.ADAPTIVE:
        return f"a {manifest.form} artifact has no seam"
    if manifest.inlined:
        return "it was exported with --inline, which leaves no seam"
    return "" if find_runtime(runtime).part else f"{runtime} runs artifacts whole"


def open_cut(artifact: Artifact, runtime: str, options: RunOptions) -> CutArtifact:
    """Cuts an adaptive artifact at its seam and opens both parts on a runtime.

    Args:
        artifact: checked before; its folder is left as it is, but for what the runtime keeps there of its own.
        runtime: name of the runtime.
        options: threads, precision and device of both parts.

    Raises:
        InvalidArgument: the artifact or the runtime cannot be cut, or not in that precision or on that device.
        ArtifactError: the graph cannot be cut.
        MissingDependency: the runtime's package is not installed.
        RuntimeUnavailable: the runtime or its device does not work here.
    """
    from sait_deploy.exporters.cut import cut

    reason = why_whole(artifact, runtime)
    if reason:
        able = ", ".join(name for name, one in RUNTIMES.items() if one.part)
        raise InvalidArgument(f"{artifact.path.name} cannot be cut: {reason}", f"adaptive artifacts can be, on {able}")
    entry = find_runtime(runtime)
    entry.check(artifact, options)
    made: Callable[..., Part] = getattr(importlib.import_module(entry.module), entry.part)
    parts = cut(graph_of(artifact))
    stem = made(artifact, options, parts.stem, "stem")
    inputs = tuple(tensor.name for tensor in parts.trunk.graph.input)
    assert CU_SEQLENS in inputs
    return CutArtifact(stem, made(artifact, options, parts.trunk, "trunk"), inputs)
