"""What a crash left is put right."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import (
    LAST_EXPORT_FILE,
    Workspace,
    open_artifact,
)
from sait_deploy.artifacts.manifest import Manifest
from tests.artifacts.places import named, names, put
from tests.exported import fill

_CRASH = """
import os, signal, sys
from pathlib import Path
from sait_deploy.artifacts.folder import Workspace
root, stage = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename

def dying(path, target):
    if stage == "aside" and path.name.startswith(".partial-"):
        os.kill(os.getpid(), signal.SIGKILL)
    moved = rename(path, target)
    return moved

Path.rename = dying
with Workspace(root).writing(root / "one") as folder:
    (folder / "model.onnx").write_bytes(b"half")
    if stage == "partial":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def crash(workspace: Workspace, stage: str) -> int:
    """Kills a process while it writes ``one``, or between its two renames; returns its number."""
    with subprocess.Popen([sys.executable, "-c", _CRASH, str(workspace.root), stage]) as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    return process.pid


@pytest.mark.parametrize("stage", ["partial", "aside"])
def test_a_killed_export_is_put_right(workspace: Workspace, manifest: Manifest, stage: str) -> None:
    place = put(workspace, named(manifest, "one"))
    before = open_artifact(place).manifest
    crash(workspace, stage)
    assert names(workspace) != {"one"}
    assert place.exists() == (stage == "partial")
    workspace.recover()
    assert names(workspace) == {"one"}
    assert open_artifact(place).manifest == before


def test_a_killed_first_export_leaves_nothing(workspace: Workspace) -> None:
    crash(workspace, "partial")
    assert names(workspace)
    workspace.prepare()
    assert names(workspace) == set()


def test_an_aside_folder_is_dropped_where_the_new_one_stands(workspace: Workspace, place: Path, ended: int) -> None:
    shutil.copytree(place, workspace.root / f".aside-{place.name}@{ended}")
    workspace.recover()
    assert names(workspace) == {place.name}


_HOLD = """
import contextlib, sys
from pathlib import Path
from sait_deploy.system.locks import held
with contextlib.ExitStack() as locks:
    for name in sys.argv[1:]:
        assert locks.enter_context(held(Path(name)))
    print("held", flush=True)
    sys.stdin.read()
"""


def test_what_another_process_writes_is_left_alone_until_it_ends(workspace: Workspace, place: Path) -> None:
    """Whatever its number: in another container it may be this process's."""
    number = os.getpid()
    theirs = {f".partial-one@{number}", f".aside-two@{number}", f".partial-{LAST_EXPORT_FILE}@{number}"}
    for name in theirs:
        shutil.copytree(place, workspace.root / name)
    command = [sys.executable, "-c", _HOLD, *(str(workspace.root / name) for name in theirs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        workspace.recover()
        assert names(workspace) == {place.name} | theirs
        process.kill()
    workspace.recover()
    assert names(workspace) == {place.name, "two"}


def test_a_link_in_place_of_a_partial_folder_is_removed_and_not_followed(workspace: Workspace, place: Path) -> None:
    (workspace.root / ".partial-one@1").symlink_to(place)
    workspace.recover()
    assert names(workspace) == {place.name}
    assert open_artifact(place)


def test_leftovers_of_a_process_that_had_this_ones_number(workspace: Workspace, manifest: Manifest) -> None:
    """In a container every run may have the number 1."""
    place = put(workspace, named(manifest, "one"))
    (workspace.root / f".partial-one@{os.getpid()}").mkdir()
    shutil.copytree(place, workspace.root / f".aside-one@{os.getpid()}")
    (workspace.root / f".partial-one@{os.getpid()}" / "half").write_bytes(b"half")
    workspace.prepare()
    assert put(workspace, named(manifest, "one")) == place
    assert names(workspace) == {"one"}


def test_what_this_process_is_writing_is_left_alone(workspace: Workspace, manifest: Manifest) -> None:
    with workspace.writing(workspace.root / "one") as folder:
        Workspace(os.path.relpath(workspace.root)).recover()
        fill(folder, manifest)
    assert open_artifact(workspace.root / "one")


@pytest.mark.parametrize("process", ["", "x", "-1", "0x7", "1.5", "9" * 30])
def test_leftovers_without_a_process_are_removed(workspace: Workspace, place: Path, process: str) -> None:
    (workspace.root / f".partial-one@{process}").mkdir()
    (workspace.root / ".partial-one").mkdir()
    workspace.recover()
    assert names(workspace) == {place.name}


def test_leftover_files_are_removed_too(workspace: Workspace, place: Path, ended: int) -> None:
    (workspace.root / f".partial-{LAST_EXPORT_FILE}@{ended}").write_text("[", encoding="utf-8")
    workspace.recover()
    assert names(workspace) == {place.name}


def test_recovering_touches_nothing_else(workspace: Workspace, place: Path) -> None:
    (workspace.root / ".git").mkdir()
    (workspace.root / "notes.txt").write_text("mine", encoding="utf-8")
    (workspace.root / "partial-one@1").mkdir()
    before = names(workspace)
    workspace.recover()
    assert names(workspace) == before


def test_recovering_a_workspace_that_is_not_there(workspace: Workspace) -> None:
    workspace.recover()
    assert not workspace.root.exists()
