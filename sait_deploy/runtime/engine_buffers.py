"""Sizes of an engine's buffers, shapes of its tensors and the profile to use, for any batch: no GPU is needed."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import TensorInfo
from sait_deploy.engine.manifest import EngineManifest, PartInfo
from sait_deploy.engine.profiles import PartName, Shape, choose_profile
from sait_deploy.errors import ArtifactError, InvalidArgument, ModelError
from sait_deploy.exporters.names import CU_SEQLENS, GUARD, KEPT, LANES, ROWS, TOKENS
from sait_deploy.tokens import Geometry

_HOST_TYPES: Final = {"bfloat16": "uint16"}
"""How the host holds element types that NumPy does not have."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Device memory for one tensor at the largest batch.

    Attributes:
        name: of the tensor; stem and trunk share the buffers of the seam.
        dtype: element type.
        size: bytes.
    """

    name: str
    dtype: str
    size: int


@dataclass(frozen=True, slots=True)
class Extents:
    """What the host reads at the seam: tokens kept by the whole batch, and by the image that keeps most."""

    rows: int
    longest: int


@dataclass(frozen=True, slots=True)
class EngineTensors:
    """Sizes and shapes of an engine's tensors for any batch that it takes."""

    manifest: EngineManifest
    geometry: Geometry

    def check_batch(self, images: int) -> None:
        """Checks a batch size.

        Raises:
            InvalidArgument: the engine was built for others.
        """
        batch = self.manifest.batch
        if not batch.smallest <= images <= batch.largest:
            raise InvalidArgument(
                f"engine {self.manifest.name} takes {batch.smallest} to {batch.largest} images, not {images}",
                f"build it with --batch MIN:OPT:MAX that holds {images}, or give another batch",
            )

    def buffers(self) -> tuple[Buffer, ...]:
        """Lists device buffers, one for each tensor, inputs and outputs of every part.

        ``kept`` has no buffer, as it is the front of ``rows``.
        """
        largest = self.manifest.batch.largest
        whole = Extents(largest * self.geometry.tokens, self.geometry.tokens)
        found: dict[str, Buffer] = {}
        for part in self.manifest.parts:
            for tensor in (*part.inputs, *part.outputs):
                size = _host_type(tensor).itemsize * int(np.prod(self.shape(tensor, largest, whole)))
                if tensor.name != KEPT:
                    found[tensor.name] = Buffer(tensor.name, tensor.dtype, size)
        return tuple(found.values())

    def shape(self, tensor: TensorInfo, images: int, extents: Extents | None = None) -> Shape:
        """Returns a tensor's shape for a batch; extents are needed for what comes after the seam."""
        seam: dict[str, int] = {TOKENS: images * self.geometry.tokens, CU_SEQLENS: images + 1, GUARD: images}
        seam[ROWS] = images * self.geometry.tokens
        if extents is not None:
            seam |= {KEPT: extents.rows, LANES: extents.longest}
        first = seam.get(tensor.name, images)
        rest = tuple(size for size in tensor.shape[1:] if isinstance(size, int))
        if len(rest) != len(tensor.shape) - 1:
            raise ModelError(f"{tensor.name} of engine {self.manifest.name} has shape {tensor.shape}", "build it again")
        return first, *rest

    def input_shapes(self, part: PartInfo, images: int, extents: Extents | None = None) -> dict[str, Shape]:
        """Returns the shapes of a part's inputs."""
        return {tensor.name: self.shape(tensor, images, extents) for tensor in part.inputs}

    def profile(self, part: PartInfo, images: int, extents: Extents | None = None) -> int:
        """Returns the index of the profile to run a batch with.

        Raises:
            InvalidArgument: none of them takes it.
        """
        shapes = self.input_shapes(part, images, extents)
        index = choose_profile(part.profiles, shapes)
        if index is None:
            raise InvalidArgument(
                f"no profile of engine {self.manifest.name}'s {part.name} takes {shapes}",
                "build it with a wider --batch",
            )
        return index

    def empty(self, tensors: Iterable[TensorInfo], images: int, wanted: Container[str]) -> dict[str, NDArray[Any]]:
        """Returns arrays for those of a part's outputs that are wanted, by name."""
        return {
            tensor.name: np.empty(self.shape(tensor, images), _host_type(tensor))
            for tensor in tensors
            if tensor.name in wanted
        }

    def extents(self, cu_seqlens: NDArray[np.int32]) -> Extents:
        """Reads the extents off the offsets of a batch, int32 [B+1].

        Raises:
            ModelError: they are no offsets of images that keep at least one token and at most all.
        """
        lengths = np.diff(cu_seqlens)
        if cu_seqlens[0] != 0 or lengths.min() < 1 or lengths.max() > self.geometry.tokens:
            raise ModelError(
                f"engine {self.manifest.name} counted {lengths.tolist()} kept tokens, which cannot be",
                "check its selection: sait-deploy inspect --check",
            )
        return Extents(int(cu_seqlens[-1]), int(lengths.max()))


def engine_parts(manifest: EngineManifest) -> tuple[PartInfo, PartInfo | None]:
    """Returns the part that runs first, and the part that runs once the host has read the extents, if there is one."""
    if len(manifest.parts) == 1:
        return manifest.parts[0], None
    return manifest.part(PartName.STEM), manifest.part(PartName.TRUNK)


def seam_of(manifest: EngineManifest) -> tuple[str, ...]:
    """Returns what a cut engine's stem hands to its trunk, by name; the host adds ``kept`` and ``lanes``.

    Raises:
        ArtifactError: the stem does not return it.
    """
    stem, trunk = manifest.part(PartName.STEM), manifest.part(PartName.TRUNK)
    crossing = tuple(tensor.name for tensor in trunk.inputs if tensor.name not in (KEPT, LANES))
    missing = {*crossing, ROWS, CU_SEQLENS} - {tensor.name for tensor in stem.outputs}
    if missing or CU_SEQLENS not in crossing:
        raise ArtifactError(
            f"engine {manifest.name} has no seam that can be read: {', '.join(sorted(missing))}",
            "build it again: sait-deploy build-engine",
        )
    return crossing


def _host_type(tensor: TensorInfo) -> np.dtype[Any]:
    return np.dtype(_HOST_TYPES.get(tensor.dtype, tensor.dtype))
