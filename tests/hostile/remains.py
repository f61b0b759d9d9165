"""What a command that was killed leaves: files in no place of their own, artifacts that are not whole, processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.hostile.world import ADAPTIVE, DENSE

MARK: Final = "SAIT_KILLED"
"""Environment variable by which processes that a command started are told."""


def left_over(folder: Path) -> list[str]:
    """Returns what is in no place that is its own: partial files, what was put aside, temporary files."""
    names = [str(path.relative_to(folder)) for path in (folder / "t").iterdir()]
    for path in (folder / "w").rglob(".*"):
        names.append(str(path.relative_to(folder)))
    return names


def broken(folder: Path) -> Iterator[str]:
    """Yields artifacts, engines, reports, states and files of rows that are not whole."""
    from sait_deploy.artifacts.folder import Workspace, open_artifact
    from sait_deploy.batch.place import open_place
    from sait_deploy.batch.rows import read_counts
    from sait_deploy.engine.folder import engine_folders, open_engine
    from sait_deploy.errors import SaitError
    from sait_deploy.training.state import read_state

    place = folder / "w"
    try:
        for path in (place / DENSE, place / ADAPTIVE, *Workspace(place / "artifacts").artifacts()):
            artifact = open_artifact(path)
            for engine in engine_folders(artifact):
                open_engine(artifact, engine)
        for report in (place / "b.json", place / "artifacts" / "last-export.json"):
            if report.exists():
                json.loads(report.read_text(encoding="utf-8"))
        read_state(place / "training")
        for number, _ in enumerate((place / "job").glob("part-*.parquet")):
            read_counts(open_place(str(place / "job")), number)
    except (SaitError, ValueError) as error:
        yield f"{type(error).__name__}: {error}"


def processes(group: int, mark: str) -> list[int]:
    """Returns processes of a group, and others that were started with that mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
                marked = f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
            if state[0] != "Z" and (int(state[2]) == group or marked):
                found.append(int(entry.name))
    return found
