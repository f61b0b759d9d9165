"""What a benchmark found of memory and of the machine: plain data, as it is written to JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from sait_deploy.runtime.precision import RunPrecision


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """The host memory that a variant takes in a process of its own: loading, then a few requests.

    Attributes:
        variant: id of the variant.
        batch: images per request.
        imported_bytes: resident before loading: the interpreter, the imported runtime and the images.
        peak_bytes: the most that was resident at any time.
    """

    variant: str
    batch: int
    imported_bytes: int
    peak_bytes: int

    @property
    def own_bytes(self) -> int:
        """What the variant itself takes at its peak."""
        return self.peak_bytes - self.imported_bytes


@dataclass(frozen=True, slots=True)
class ProductRate:
    """How fast large matrices are multiplied where a runtime runs.

    Attributes:
        runtime: name of the runtime.
        precision: what it multiplied in.
        operations_per_second: multiplications and additions.
        device: name of the GPU, or of another device that the runtime was to run on; empty for the processors.
        by: what multiplied, where the runtime itself runs no products alone; empty where it did.
    """

    runtime: str
    precision: RunPrecision
    operations_per_second: float
    device: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Roofline:
    """What this machine can do at most, measured.

    Attributes:
        parameters: the model's, all of which a request reads at least once.
        rates: of matrix products, one for each runtime and precision that ran.
        bytes_per_second: of the host's memory, reading and writing, in a copy far larger than the caches.
        device_bytes_per_second: the same of a GPU's own memory, by the GPU's name.
    """

    parameters: int
    rates: tuple[ProductRate, ...]
    bytes_per_second: float
    device_bytes_per_second: dict[str, float] = field(default_factory=dict)
