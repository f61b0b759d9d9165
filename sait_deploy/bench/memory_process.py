"""The process whose memory is measured: ``python -m sait_deploy.bench.memory_process FOLDER PARENT`` runs it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Final

from sait_deploy.bench.memory import MemoryRequest, answer
from sait_deploy.errors import RuntimeUnavailable, SaitError
from sait_deploy.runtime import load
from sait_deploy.runtime.registry import find_runtime
from sait_deploy.system.children import end_with
from sait_deploy.system.telemetry import import_runtime

_RUNS: Final = 3
"""A runtime keeps what a first request took, and may need more for the next."""

_STATUS: Final = Path("/proc/self/status")


def main(folder: Path, parent: int) -> int:
    """Runs the request in a folder, and writes there what memory it took, while the process that asks is there."""
    end_with(parent)
    try:
        request, images, choice = MemoryRequest.read(folder)
        entry = find_runtime(request.runtime)
        import_runtime(entry.package)
        importlib.import_module(entry.module)
        imported = _status_bytes("VmRSS")
        runner = load(request.artifact, request.runtime, request.running)
        for _ in range(_RUNS):
            runner.run_at(images, choice)
        # The kernel's own peak of this process: ru_maxrss begins at that of the process which started it.
        answer(folder, imported, _status_bytes("VmHWM"))
    except SaitError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


def _status_bytes(field: str) -> int:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        raise RuntimeUnavailable("memory is measured on Linux alone, by /proc/self/status") from None
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
