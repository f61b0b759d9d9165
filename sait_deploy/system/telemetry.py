"""Runtimes' packages, imported without what they would tell their makers."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Final

SWITCH: Final = "SAIT_DEPLOY_TELEMETRY"
"""Environment variable that leaves the packages' telemetry as it is where it is ``1``."""

_ONNXRUNTIME_SWITCH: Final = "ORT_DISABLE_TELEMETRY"
"""onnxruntime reads it when it is imported; else it queues events in a file and looks its maker's host up."""

_OPENVINO_SENDER: Final = "openvino_telemetry"
"""The package by which openvino reports that it is imported; without it, it reports nothing."""


def import_runtime(package: str) -> ModuleType:
    """Returns a runtime's package, which sends nothing unless the user's environment has ``SWITCH``.

    Raises:
        ImportError: it is not installed, or cannot be imported.
    """
    if os.environ.get(SWITCH) == "1":
        return importlib.import_module(package)
    os.environ.setdefault(_ONNXRUNTIME_SWITCH, "1")
    with _absent(_OPENVINO_SENDER):
        return importlib.import_module(package)


@contextlib.contextmanager
def _absent(package: str) -> Iterator[None]:
    """Makes a package that was not imported seem not to be installed while the block runs."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # so Python marks what cannot be imported
    try:
        yield
    finally:
        sys.modules.pop(package, None)
