"""What works on this machine: each part is tried for real, not looked up."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from sait_deploy import __version__
from sait_deploy.errors import BuilderUnavailable, MissingDependency, RuntimeUnavailable, first_line
from sait_deploy.runtime.registry import RUNTIMES
from sait_deploy.system.nvidia import driver_line
from sait_deploy.system.progress import Progress, logged


class State(StrEnum):
    """How a part came out of its trial."""

    WORKS = "works"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part, how it came out, and what to do about it."""

    part: str
    state: State
    detail: str
    hint: str


def _versions() -> str:
    python = f"Python {platform.python_version()}"
    return f"sait-deploy {__version__}, {python}, {platform.system()} {platform.release()} {platform.machine()}"


def _export() -> str:
    import onnxscript
    import timm

    from sait_deploy.models.creation import supported_names

    return f"timm {timm.__version__}, onnxscript {onnxscript.__version__}, {len(supported_names())} models"


def _demonstration() -> str:
    from sait_deploy import demo
    from sait_deploy.images.dataset import shipped_dataset

    if not demo.WEIGHTS.is_file():
        raise RuntimeError(f"{demo.WEIGHTS.name} is not there")
    return f"weights and {len(shipped_dataset(demo.NAME).images)} images are there"


def _digits() -> str:
    import sklearn

    from sait_deploy.demo.data import Split, compose_many

    compose_many(Split.HELD_OUT, 1, seed=0)
    return f"scikit-learn {sklearn.__version__}"


def _gpu() -> str:
    from sait_deploy.engine.cuda import DeviceBuffer, Stream, device

    found, stream = device(), Stream()
    sent, back = np.arange(16, dtype=np.int32), np.zeros(16, dtype=np.int32)
    buffer = DeviceBuffer(sent.nbytes)
    stream.upload(buffer.address, sent)
    stream.download(back, buffer.address)
    stream.synchronize()
    if not np.array_equal(sent, back):
        raise RuntimeError("what was copied to the GPU came back different")
    return f"{found.name}, {found.target}"


EXPORT: Final = "export"
"""The part that exporting needs."""

_DRIVER: Final = "NVIDIA driver"

_SYSTEM: Final[tuple[tuple[str, Callable[[], str], str], ...]] = (
    ("versions", _versions, "reinstall sait-deploy"),
    (_DRIVER, driver_line, "install NVIDIA's driver"),
)
"""What is asked before any package is tried, likewise."""

_OTHERS: Final[tuple[tuple[str, Callable[[], str], str], ...]] = (
    (EXPORT, _export, "pip install 'sait-deploy[export,cpu]'"),
    ("demonstration model", _demonstration, "reinstall sait-deploy"),
    ("demonstration's thousand images", _digits, "pip install 'sait-deploy[train]'"),
    ("reach a GPU", _gpu, "pip install 'sait-deploy[rtx]', on a machine with an NVIDIA GPU and its driver"),
)
"""What is tried in addition to the runtimes: its name, its trial, and what to do where it fails."""


def examine(progress: Progress = logged) -> list[Finding]:
    """Tries every runtime and every other part, and returns what came of it.

    Example::

        for finding in sait_deploy.examine():
            print(finding.part, finding.state, finding.hint)
    """
    runtimes = [(runtime.task, runtime.trial, runtime.installation) for runtime in RUNTIMES.values()]
    findings = []
    for part, trial, hint in (*_SYSTEM, *runtimes, *_OTHERS):
        progress(f"trying: {part}")
        findings.append(_tried(part, trial, hint))
    return findings


def _tried(part: str, trial: Callable[[], str], hint: str) -> Finding:
    try:
        return Finding(part, State.WORKS, trial(), "")
    except RuntimeUnavailable as error:  # the package is there, and the device is not
        hint = error.hint if part == _DRIVER else f"see {_DRIVER} above: the package is there"
        return Finding(part, State.MISSING, first_line(error), hint)
    # any other ImportError is of a package that is there and broken
    except (ModuleNotFoundError, MissingDependency, BuilderUnavailable) as error:
        return Finding(part, State.MISSING, first_line(error), hint)
    except Exception as error:  # whatever a broken installation raises is the finding
        return Finding(part, State.BROKEN, first_line(error)[:160], hint)
