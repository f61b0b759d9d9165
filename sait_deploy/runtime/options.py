"""How a runner runs: threads, device, precision and trust."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sait_deploy.engine.trust import Consent
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE
from sait_deploy.system.option_values import check_options

_MOST_THREADS: Final = 1024


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a runner runs.

    Attributes:
        threads: threads within one operator; None for all of the processors this process may use.
        weights: the torch runtime's weights file, in place of the one that the manifest names.
        device: where torch or OpenVINO runs, by their own names (``cuda:0``; ``GPU``, ``NPU``), in capitals or not;
            ``cpu`` in both.
        precision: what to compute in; None for what the artifact, or its engine, is made for.
        consent: to engines that this user did not build; None for what the command line said, which is none by default.

    Raises:
        InvalidArgument: the number of threads is not from 1 to 1,024, or the device has no name.
    """

    threads: int | None = None
    weights: Path | None = None
    device: str = DEFAULT_DEVICE
    precision: RunPrecision | None = None
    consent: Consent | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and (type(self.threads) is not int or not 1 <= self.threads <= _MOST_THREADS):
            raise InvalidArgument(f"{self.threads!r} is no number of threads", f"use 1 to {_MOST_THREADS}")
        check_options(self)
        if not self.device.strip():
            raise InvalidArgument("a device without a name was asked for", "name one, such as cpu, GPU or cuda:0")
