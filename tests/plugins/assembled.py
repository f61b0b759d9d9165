"""Kernels assembled by the assembler beside Triton."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any


def assemble(ptx: str, assembler: Any, folder: Path) -> str:
    """Returns what ptxas says of the resources, for the GPU that the text names."""
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert target is not None
    (folder / "kernel.ptx").write_text(ptx)
    command = [assembler.path, "-v", f"-arch={target[1]}", "kernel.ptx", "-o", "kernel.cubin"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "kernel.cubin").stat().st_size > 1000
    return done.stderr
