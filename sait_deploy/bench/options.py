"""What a benchmark is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from sait_deploy.bench.clock import MeasureOptions
from sait_deploy.bench.results import Timing
from sait_deploy.bench.variants import NO_SWEEP, Sweep
from sait_deploy.errors import InvalidArgument
from sait_deploy.images.dataset import check_class_map
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, find_runtime, is_default_device
from sait_deploy.system.option_values import check_options


class AccuracyOf(Enum):
    """Which variants' accuracy is measured beside their speed."""

    NONE = "none"
    TRAINED = "trained"
    """Those whose answers mean something: trained weights, with a head."""


class Also(Enum):
    """What is measured in addition to times."""

    MEMORY = "memory"
    """Peak memory of each variant, in a process of its own."""

    ROOFLINE = "roofline"
    """What this machine can do at most, and each row's share of it."""


DEFAULT_BATCHES: Final = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        batches: images per request; where they are the default, graphs of fixed batch size have their own.
        runtimes: which runtimes, each measured by itself; with none, ONNX Runtime and those that artifacts have engines
            of.
        precisions: which precisions on each of them; with none, that which each artifact or engine is made for.
        threads: threads within one operator; None for all processors.
        device: where each runtime runs; see ``RunOptions``. A runtime that cannot is skipped.
        images: folder to measure accuracy and time on; None for the images that come with the toolkit.
        class_map: file that says the class of each subfolder of ``images``; None for the classes of those names.
        accuracy: which variants' accuracy is measured.
        timing: what the clock covers.
        warmup: rounds not counted.
        duration: seconds per batch size.
        sweep: operating points of adaptive artifacts.
        also: what is measured in addition.
    """

    batches: tuple[int, ...] = DEFAULT_BATCHES
    runtimes: tuple[str, ...] = ()
    precisions: tuple[RunPrecision, ...] = ()
    threads: int | None = None
    device: str = DEFAULT_DEVICE
    images: Path | None = None
    class_map: Path | None = None
    accuracy: AccuracyOf = AccuracyOf.TRAINED
    timing: Timing = Timing.END_TO_END
    warmup: int = 3
    duration: float = 10.0
    sweep: Sweep = NO_SWEEP
    also: frozenset[Also] = frozenset()

    def __post_init__(self) -> None:
        check_options(self)
        check_class_map(self.images, self.class_map)
        if not self.batches or min(self.batches) < 1:
            sizes = ", ".join(map(str, self.batches)) or "none"
            raise InvalidArgument(f"batch sizes cannot be {sizes}", "give whole numbers from 1")
        RunOptions(self.threads, device=self.device)
        for name in self.runtimes:
            find_runtime(name)
        _ = self.measuring

    @property
    def skips(self) -> bool:
        """Whether a group that cannot be loaded is skipped, as combinations were asked for and not each group."""
        return bool(self.precisions) or not is_default_device(self.device)

    @property
    def measuring(self) -> MeasureOptions:
        """The part that the clock needs."""
        return MeasureOptions(self.timing, self.warmup, self.duration)
