"""What a benchmark found of memory and of the machine: plain data, as it is written to JSON."""

from __future__ import annotations

from dataclasses import dataclass

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
    """How fast a runtime multiplies large matrices here.

    Attributes:
        runtime: name of the runtime.
        precision: what it multiplied in.
        operations_per_second: multiplications and additions.
    """

    runtime: str
    precision: RunPrecision
    operations_per_second: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """What this machine can do at most, measured.

    Attributes:
        parameters: the model's, all of which a request reads at least once.
        rates: of matrix products, one for each runtime and precision that ran.
        bytes_per_second: of memory, reading and writing, in a copy far larger than the caches.
    """

    parameters: int
    rates: tuple[ProductRate, ...]
    bytes_per_second: float
