"""The host memory that variants take, each in a process of its own: what others loaded would count otherwise."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.points import PointChoice
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.machine_results import PeakMemory
from sait_deploy.bench.variants import RunnableVariant
from sait_deploy.engine.trust import Consent, granted
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.system.children import child_environment
from sait_deploy.system.scratch import scratch_folder

INPUTS_FILE: Final = "inputs.npz"
_REQUEST_FILE: Final = "request.json"
_ANSWER_FILE: Final = "answer.json"
_POINT_FIELDS: Final = ("mass", "min_keep", "max_keep")
_SHOWN: Final = 200


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryRequest:
    """What the other process is to run.

    Attributes:
        artifact: the artifact's folder.
        runtime: name of the runtime.
        threads: threads within one operator; None for all processors.
        precision: what to run in; None for what the artifact is made for.
        device: where to run.
        point: name of the operating point, what replaces parts of it lies beside the images.
        consent: what this process's user allowed.
    """

    artifact: str
    runtime: str
    threads: int | None
    precision: str | None
    device: str
    point: str | None
    consent: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> tuple[MemoryRequest, NDArray[np.float32], PointChoice]:
        """Returns the request in a folder, its images, float32 [B, C, H, W], and their operating points."""
        request = cls(**json.loads((folder / _REQUEST_FILE).read_text(encoding="utf-8")))
        with np.load(folder / INPUTS_FILE) as arrays:
            parts = {name: arrays[name] for name in _POINT_FIELDS if name in arrays}
            return request, arrays["images"], PointChoice(request.point, **parts)

    @property
    def running(self) -> RunOptions:
        """How the runtime is to run."""
        precision = None if self.precision is None else RunPrecision(self.precision)
        return RunOptions(self.threads, device=self.device, precision=precision, consent=Consent(**self.consent))

    def write(self, folder: Path) -> None:
        """Writes the request into a folder, from which ``read`` reads it."""
        (folder / _REQUEST_FILE).write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")


def answer(folder: Path, imported_bytes: int, peak_bytes: int) -> None:
    """Writes what the other process found."""
    found = {"imported_bytes": imported_bytes, "peak_bytes": peak_bytes}
    (folder / _ANSWER_FILE).write_text(json.dumps(found), encoding="utf-8")


def measure_memory(
    plan: GroupPlan, variant: RunnableVariant, images: NDArray[np.float32], threads: int | None
) -> PeakMemory:
    """Loads and runs a variant in a process of its own.

    Args:
        plan: its group.
        variant: what to run.
        images: a batch, float32 [B, C, H, W].
        threads: threads within one operator; None for all processors.

    Raises:
        RuntimeUnavailable: the process did not come to its end; says why.
    """
    choice = variant.choices(len(images)).of(slice(0, len(images)))
    parts = {name: getattr(choice, name) for name in _POINT_FIELDS if getattr(choice, name) is not None}
    precision = None if plan.asked is None else plan.asked.value
    place, consent = str(variant.artifact.path.resolve()), dataclasses.asdict(granted())
    request = MemoryRequest(place, plan.runtime, threads, precision, plan.device, choice.point, consent)
    with scratch_folder() as folder:
        np.savez(folder / INPUTS_FILE, images=images, **parts)
        request.write(folder)
        command = [sys.executable, "-P", "-m", "sait_deploy.bench.memory_process", str(folder), str(os.getpid())]
        done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
        if not (folder / _ANSWER_FILE).is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
            why = f"its process ended without an answer: {lines[-1][:_SHOWN]}"
            raise RuntimeUnavailable(why, "try a smaller batch")
        found = json.loads((folder / _ANSWER_FILE).read_text(encoding="utf-8"))
    return PeakMemory(variant.id, len(images), found["imported_bytes"], found["peak_bytes"])
