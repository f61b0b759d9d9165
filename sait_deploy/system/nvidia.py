"""Whether there is an NVIDIA GPU and a driver for it: asked of the system, for which no package is needed."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Final

from sait_deploy.errors import RuntimeUnavailable

_LIBRARY: Final = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_VENDOR: Final = "0x10de"
_DISPLAYS: Final = "0x03"
"""How the class of a PCI device that computes or draws begins."""


def driver_line() -> str:
    """Returns which CUDA the NVIDIA driver speaks, and how many GPUs it has.

    Raises:
        RuntimeUnavailable: there is no GPU, no driver for it, or the driver does not work.
    """
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError:
        if _has_gpu():
            raise RuntimeUnavailable(
                "an NVIDIA GPU is in this machine, and no driver for it", "install NVIDIA's driver for the GPU"
            ) from None
        raise RuntimeUnavailable(
            "no NVIDIA GPU is seen in this machine, and no driver", "none is needed to export and to run on a CPU"
        ) from None
    status = cuda.cuInit(0)
    if status:
        raise RuntimeUnavailable(f"the driver cannot start: CUDA's error {status}", "see what nvidia-smi says")
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    return f"for CUDA {version.value // 1000}.{version.value % 1000 // 10}, {count.value} GPU(s)"


def _has_gpu() -> bool:
    """Returns whether the system lists one; of systems other than Linux nothing is known."""
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        try:
            kind = vendor.with_name("class").read_text(encoding="ascii")
            if vendor.read_text(encoding="ascii").strip() == _VENDOR and kind.startswith(_DISPLAYS):
                return True
        except OSError:
            continue
    return False
