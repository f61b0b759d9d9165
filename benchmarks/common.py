"""What the suites share: where results go, and what they say about the machine."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sait_deploy.artifacts.files import write_whole
from sait_deploy.exporters.lower_openvino import LOWERING
from sait_deploy.system.machine import load_average, processor_name
from sait_deploy.system.processors import processors

RESULTS: Final = Path(__file__).parent / "results"
THREADS: Final = 2
OPENVINO_LOWERING: Final = "openvino lowering"


def environment(*packages: str) -> dict[str, str]:
    """Returns the machine and the versions of the named packages; with OpenVINO, that of its lowering too."""
    known = {
        "processor": processor_name(),
        "processors usable": str(processors()),
        "load average at start": load_average(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    lowering = {OPENVINO_LOWERING: str(LOWERING)} if "openvino" in packages else {}
    return known | {name: version(name) for name in packages} | lowering


def peak_kib() -> int:
    """Returns the most memory that this process has held, in KiB.

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def write(name: str, command: str, found: dict[str, Any], machine: dict[str, str], place: Path | None = None) -> Path:
    """Writes a result file with the command that makes it and the machine it came from; None for where results lie."""
    path = place or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    document = {"command": command, "created": created, "environment": machine, **found}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def once(file: Path, question: tuple[object, ...], answer: Callable[[], Any]) -> None:
    """Writes the answer to a question, unless the file holds it."""
    asked = hashlib.sha256(repr(question).encode()).hexdigest()
    if not file.is_file() or not _answers(file, asked):
        write_whole(file, json.dumps({"asked": asked, "found": answer()}).encode())


def _answers(file: Path, asked: str) -> bool:
    try:
        return bool(read_json(file)["asked"] == asked)
    except (ValueError, KeyError, TypeError):
        return False


def read_json(file: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def read_result(name: str) -> dict[str, Any]:
    """Reads a committed result file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found
