"""The C++ sample, compiled once against the stand-in for NVIDIA's libraries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.samples.cpp_parts import COMPILE, DOUBLE, PROGRAM, SAMPLE


@pytest.fixture(scope="session")
def run_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    program = tmp_path_factory.mktemp("run_engine") / "run_engine"
    subprocess.run([*COMPILE, "-isystem", DOUBLE, *PROGRAM, "-o", program], cwd=SAMPLE, check=True)
    return program
