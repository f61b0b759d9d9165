"""Options of building engines, and the checks of their values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sait_deploy.engine.packages import BuilderName
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import EnginePrecision, QuantizedType
from sait_deploy.system.option_values import check_options

TARGETS: Final = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""GPU architectures that TensorRT for RTX builds for."""

DEFAULT_TARGETS: Final = ("sm86", "sm89", "sm120")
"""Architectures of common workstation GPUs, built for where this machine has no GPU."""

AMPERE: Final = 80
"""The oldest architecture that runs hardware-compatible engines."""

FIRST_FLOAT8: Final = 89
"""The oldest architecture that multiplies float8."""

MAX_TOPK: Final = 3840
"""Most entries that TensorRT's TopK sorts, and so most patch tokens where the selection is no plugin."""

_MOST_LEVEL: Final = 5
_MOST_GIB: Final = 1 << 16
_MOST_IMAGES: Final = 2**31 - 1


class BuilderChoice(StrEnum):
    """Which builder is asked for."""

    AUTO = "auto"
    """TensorRT where it and a GPU are there, else TensorRT for RTX."""

    TENSORRT = BuilderName.TENSORRT.value
    TENSORRT_RTX = BuilderName.TENSORRT_RTX.value


class PluginChoice(StrEnum):
    """Whether the selection may be a plugin."""

    WHERE_POSSIBLE = "where-possible"
    NEVER = "never"


class FusionChoice(StrEnum):
    """Whether attention has to be one kernel."""

    REQUIRED = "required"
    ALLOWED_UNFUSED = "allowed-unfused"


class AttentionChoice(StrEnum):
    """What a trunk's attention works on."""

    PADDED = "padded"
    """Images padded to the longest."""

    PACKED = "packed"
    """Rows laid end to end; TensorRT's alone, from 11 on, where the GPU has a kernel for it."""


class Portability(StrEnum):
    """Where an engine is to run beside the TensorRT version and the GPU that it is built with."""

    VERSIONS = "version-compatible"
    HARDWARE = "hardware-compatible"


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Images per request: the fewest, what is tuned for, and the most.

    Raises:
        InvalidArgument: out of order, or beyond int32.
    """

    smallest: int = 1
    optimum: int = 8
    largest: int = 32

    def __post_init__(self) -> None:
        check_options(self)
        if not 1 <= self.smallest <= self.optimum <= self.largest:
            raise InvalidArgument(f"batch {self} is out of order", "give MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX")
        if self.largest > _MOST_IMAGES:
            raise InvalidArgument(f"batch {self.largest} is beyond int32", "give a smaller MAX")

    def __str__(self) -> str:
        return f"{self.smallest}:{self.optimum}:{self.largest}"

    @classmethod
    def parse(cls, text: str) -> BatchRange:
        """Reads ``MIN:OPT:MAX``.

        Raises:
            InvalidArgument: it is not of that form.
        """
        if not re.fullmatch(r"\d{1,12}:\d{1,12}:\d{1,12}", text, re.ASCII):
            raise InvalidArgument(f"batch {text!r} is not MIN:OPT:MAX", "such as 1:8:32")
        return cls(*map(int, text.split(":")))


def batch_of(fixed: int | None, asked: BatchRange) -> BatchRange:
    """Returns the images per request of an artifact's engine: those asked for, or those that its graph is fixed to.

    Args:
        fixed: images of every request of the graph; None for any number.
        asked: what was asked for; the default stands for nothing in particular.

    Raises:
        InvalidArgument: the graph is fixed to another number than was asked for.
    """
    if fixed is None:
        return asked
    own = BatchRange(fixed, fixed, fixed)
    if asked not in (own, BatchRange()):
        raise InvalidArgument(
            f"--batch {asked} is not the graph's, which is for batches of {fixed} images",
            "leave --batch out, or export without it",
        )
    return own


def parse_targets(text: str) -> tuple[str, ...]:
    """Reads a list of GPU architectures, as in ``sm86,sm89``.

    Raises:
        InvalidArgument: one is not known.
    """
    targets = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    for target in targets:
        if target not in TARGETS:
            raise InvalidArgument(f"unknown target {target!r}", f"known are {', '.join(TARGETS)}")
    return tuple(sorted(targets, key=TARGETS.index))


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What to build.

    Attributes:
        builder: which builder.
        precision: of matrix products and attention.
        targets: GPU architectures to build for, of TensorRT for RTX; empty for this machine's GPU, or else
            ``DEFAULT_TARGETS``.
        batch: images per request.
        workspace_gib: GPU memory that a kernel may use for itself, GiB; None for no limit.
        opt_level: how hard the builder tries, 0 to 5; None for its default.
        timing_cache: file of measured kernel times, read and written; TensorRT's alone.
        portability: what else the engine is to run on; TensorRT's alone.
        strip_weights: whether weights are left out of the engine and put in when it is loaded.
        plugin: whether the selection may be a plugin.
        fusion: whether attention has to be one kernel.
        quantized: numbers of an int8 artifact's quantised layers.
        attention: what a trunk's attention works on.

    Raises:
        InvalidArgument: values that cannot be, or do not fit each other.
    """

    builder: BuilderChoice = BuilderChoice.AUTO
    precision: EnginePrecision = EnginePrecision.FP16
    targets: tuple[str, ...] = ()
    batch: BatchRange = BatchRange()
    workspace_gib: float | None = None
    opt_level: int | None = None
    timing_cache: Path | None = None
    portability: frozenset[Portability] = frozenset()
    strip_weights: bool = False
    plugin: PluginChoice = PluginChoice.WHERE_POSSIBLE
    fusion: FusionChoice = FusionChoice.REQUIRED
    quantized: QuantizedType = QuantizedType.INT8
    attention: AttentionChoice = AttentionChoice.PADDED

    def __post_init__(self) -> None:
        check_options(self)
        unfused = self.precision is EnginePrecision.FP32 or self.fusion is FusionChoice.ALLOWED_UNFUSED
        if unfused and self.attention is AttentionChoice.PACKED:
            why = "--precision fp32" if self.precision is EnginePrecision.FP32 else "--allow-unfused"
            raise InvalidArgument(
                f"attention on packed rows is one fused kernel, and {why} asks for none", "leave one of the two out"
            )
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown:
            raise InvalidArgument(f"unknown target {unknown[0]!r}", f"known are {', '.join(TARGETS)}")
        check_precision(self.precision, self.targets)
        check_quantized(self.quantized, self.targets)
        if self.workspace_gib is not None and not 0 < self.workspace_gib <= _MOST_GIB:
            raise InvalidArgument(
                f"a workspace of {self.workspace_gib:g} GiB cannot be", f"give GiB above 0, at most {_MOST_GIB}"
            )
        if self.opt_level is not None and not 0 <= self.opt_level <= _MOST_LEVEL:
            raise InvalidArgument(f"optimisation level {self.opt_level} is not there", f"give 0 to {_MOST_LEVEL}")


def check_precision(precision: EnginePrecision, targets: tuple[str, ...]) -> None:
    """Checks that TensorRT for RTX has kernels of a precision for its targets.

    Raises:
        InvalidArgument: sm75 is among them, which is built for in fp16 alone.
    """
    if precision is not EnginePrecision.FP16 and "sm75" in targets:
        what = "sm75 has no bf16" if precision is EnginePrecision.BF16 else "TensorRT for RTX has no fp32 for sm75"
        raise InvalidArgument(what, "use --precision fp16, or leave sm75 out of --target")


def check_quantized(quantized: QuantizedType, targets: tuple[str, ...]) -> None:
    """Checks that every target computes with these numbers.

    Raises:
        InvalidArgument: one of them has no float8.
    """
    without = [target for target in targets if int(target.removeprefix("sm")) < FIRST_FLOAT8]
    if quantized is QuantizedType.FP8 and without:
        raise InvalidArgument(f"{', '.join(without)} has no fp8", f"name GPUs from sm{FIRST_FLOAT8} on with --target")


def check_for_builder(options: EngineOptions, builder: BuilderName) -> None:
    """Checks that a builder can do what is asked of it.

    Raises:
        InvalidArgument: it cannot.
    """
    if builder is BuilderName.TENSORRT and options.targets:
        raise InvalidArgument(
            "TensorRT builds for the GPU it runs on, not for --target", "leave it out, or use --builder tensorrt-rtx"
        )
    if builder is not BuilderName.TENSORRT_RTX:
        return
    if options.attention is AttentionChoice.PACKED:
        raise InvalidArgument(
            "TensorRT for RTX has no kernel for attention on packed rows",
            "leave --attention out, or use --builder tensorrt",
        )
    for what, asked in (
        ("--version-compatible", Portability.VERSIONS in options.portability),
        ("--hardware-compatible", Portability.HARDWARE in options.portability),
        ("--timing-cache", options.timing_cache is not None),
    ):
        if asked:
            raise InvalidArgument(
                f"{what} is TensorRT's, and TensorRT for RTX has no such thing",
                "leave it out: its engines run on every GPU of --target, and their kernels are tuned where they run",
            )
