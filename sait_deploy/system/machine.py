"""What a benchmark says of the machine it ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

from sait_deploy import __version__
from sait_deploy.system.command_line import command_line
from sait_deploy.system.processors import processors


def environment(threads: int | None) -> dict[str, str]:
    """Returns what there is whatever the runtime, name to value."""
    return {
        **made_by(),
        "processor": processor_name(),
        "processors usable": str(processors()),
        "threads": str(processors() if threads is None else threads),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def made_by() -> dict[str, str]:
    """Returns the version of this package, and the command line where there is one."""
    typed = command_line()
    return {"sait-deploy": __version__} | ({} if typed is None else {"command": typed})


def processor_name() -> str:
    """Returns the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load_average() -> str:
    """Returns how busy the machine was over the last 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
