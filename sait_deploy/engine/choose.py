"""The choice of a builder, and of the GPU architectures that it builds for."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any, Final

from sait_deploy.engine.builder import import_builder
from sait_deploy.engine.cuda import Device, find_device
from sait_deploy.engine.options import (
    DEFAULT_TARGETS,
    TARGETS,
    AttentionChoice,
    BuilderChoice,
    EngineOptions,
    FusionChoice,
    check_for_builder,
    check_precision,
    check_quantized,
)
from sait_deploy.engine.packages import PACKAGES, BuilderName
from sait_deploy.errors import BuilderUnavailable, InvalidArgument, first_line
from sait_deploy.exporters.names import AttentionForm, EnginePrecision

_TAKES_LENGTHS: Final = 11
"""The first version of TensorRT whose attention is told lengths."""


@dataclass(frozen=True, slots=True)
class Builder:
    """A builder that can work here: its version, and the GPU architectures it will build for."""

    name: BuilderName
    version: str
    targets: tuple[str, ...]


def attention_form(builder: Builder, options: EngineOptions) -> AttentionForm:
    """Returns how attention stands in the graphs that a builder is given.

    TensorRT takes lengths from 11 on. Its header names no mask that is one row for all queries, which TensorRT for RTX
    fuses.

    Raises:
        InvalidArgument: packed rows are asked for, and this version of TensorRT has no attention on them.
    """
    if options.precision is EnginePrecision.FP32 or options.fusion is FusionChoice.ALLOWED_UNFUSED:
        return AttentionForm.DECOMPOSED
    told = builder.name is BuilderName.TENSORRT and int(builder.version.partition(".")[0]) >= _TAKES_LENGTHS
    if options.attention is AttentionChoice.PACKED:
        if told:
            return AttentionForm.PACKED
        raise InvalidArgument(
            f"{builder.name} {builder.version} has no attention on packed rows, which began with {_TAKES_LENGTHS}",
            "leave --attention out, or install a newer TensorRT",
        )
    return AttentionForm.FUSED_LENGTHS if told else AttentionForm.FUSED


def installed(name: BuilderName) -> bool:
    """Whether a builder's package is there."""
    return importlib.util.find_spec(PACKAGES[name].name) is not None


def choose_builder(options: EngineOptions) -> Builder:
    """Returns the builder to use.

    Raises:
        BuilderUnavailable: none is installed, or it needs a GPU that is not there or another one.
        InvalidArgument: it cannot do what is asked.
    """
    device = find_device()
    if options.builder is not BuilderChoice.AUTO:
        name = BuilderName(options.builder.value)
    elif installed(BuilderName.TENSORRT) and device is not None and not options.targets:
        name = BuilderName.TENSORRT
    else:
        name = BuilderName.TENSORRT_RTX
    check_for_builder(options, name)
    version = str(load_package(name).__version__)
    _check_version(name, version)
    if name is BuilderName.TENSORRT:
        if device is None:
            raise BuilderUnavailable(
                "TensorRT builds on the GPU that an engine is for, and no GPU can be used here",
                "use --builder tensorrt-rtx, which builds without one",
            )
        targets: tuple[str, ...] = (device.target,)
    elif options.targets:
        targets = options.targets
    else:
        targets = DEFAULT_TARGETS if device is None else (_known_to_rtx(device),)
    if name is BuilderName.TENSORRT_RTX:
        check_precision(options.precision, targets)
    check_quantized(options.quantized, targets)
    return Builder(name, version, targets)


def _known_to_rtx(gpu: Device) -> str:
    """Returns the architecture of this machine's GPU, which for Hopper's is none that TensorRT for RTX has."""
    if gpu.target not in TARGETS:
        extra, known = PACKAGES[BuilderName.TENSORRT].extra, ", ".join(TARGETS)
        raise BuilderUnavailable(
            f"TensorRT for RTX builds nothing for the {gpu.name} of this machine ({gpu.target}), only for {known}",
            f"pip install 'sait-deploy[{extra}]' and use --builder tensorrt, or name other GPUs with --target",
        )
    return gpu.target


def _check_version(name: BuilderName, version: str) -> None:
    oldest = PACKAGES[name].oldest
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < oldest:
        raise BuilderUnavailable(
            f"{name} {version} is too old, {'.'.join(map(str, oldest))} is needed",
            f"pip install --upgrade 'sait-deploy[{PACKAGES[name].extra}]'",
        )


def load_package(name: BuilderName) -> Any:
    """Returns the package of a builder, which also runs its engines.

    Raises:
        BuilderUnavailable: it is not installed, or cannot be loaded.
    """
    package = PACKAGES[name]
    try:
        return import_builder(name)
    except ModuleNotFoundError:
        raise BuilderUnavailable(
            f"{package.name} is not installed", f"pip install 'sait-deploy[{package.extra}]'"
        ) from None
    except (ImportError, OSError) as error:
        raise BuilderUnavailable(
            f"{package.name} is installed but cannot be loaded ({first_line(error)})",
            "reinstall it, and see sait-deploy doctor",
        ) from None
