"""Giving memory back: what was freed leaves the process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
from pathlib import Path
from sait_deploy.system.memory import give_back

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

kept, freed = [], []
for _ in range(10_000):  # a small block is kept after each: the C library gives none of it back by itself
    freed.append(bytearray(12_000))
    kept.append(bytearray(600))
before = resident()
del freed
give_back()
print(before - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_what_was_freed_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50_000, "KiB of 120,000"
