"""The builders of engines, and the package that each comes in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class BuilderName(StrEnum):
    """The builders."""

    TENSORRT = "tensorrt"
    """NVIDIA TensorRT: builds on the GPU that the engine will run on."""

    TENSORRT_RTX = "tensorrt-rtx"
    """NVIDIA TensorRT for RTX: builds ahead of time, also where no GPU is."""


@dataclass(frozen=True, slots=True)
class BuilderPackage:
    """The package of a builder, which runs its engines too.

    Attributes:
        name: import name.
        oldest: the oldest version that will do.
        extra: the extra of sait-deploy that installs it.
        tool: the command-line program that comes with it, which loads and times engines.
    """

    name: str
    oldest: tuple[int, int]
    extra: str
    tool: str


PACKAGES: Final[dict[BuilderName, BuilderPackage]] = {
    BuilderName.TENSORRT: BuilderPackage("tensorrt", (10, 16), "tensorrt", "trtexec"),
    BuilderName.TENSORRT_RTX: BuilderPackage("tensorrt_rtx", (1, 7), "rtx", "tensorrt_rtx"),
}
