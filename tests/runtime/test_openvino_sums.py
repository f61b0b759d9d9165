"""Whether int8 products are exact here is measured, and agrees with what the processor says of itself."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from sait_deploy.runtime.openvino import shared_core, trial
from sait_deploy.runtime.openvino_sums import EXACT, SATURATING, int8_sums

pytest.importorskip("openvino")
ABOUT = Path("/proc/cpuinfo")


@pytest.mark.skipif(platform.machine() != "x86_64" or not ABOUT.exists(), reason="reads flags of x86 on Linux")
def test_sums_are_exact_where_the_processor_has_vnni() -> None:
    flags = next(line for line in ABOUT.read_text().splitlines() if line.startswith("flags")).split()
    assert int8_sums(shared_core(), "CPU") == (EXACT if any("vnni" in flag for flag in flags) else SATURATING)


def test_doctor_says_how_sums_are_made() -> None:
    assert trial().endswith(f"int8 sums {int8_sums(shared_core(), 'CPU')}")
