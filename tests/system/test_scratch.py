"""Folders for a while: removed in the end, and by the next where a kill left them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sait_deploy.system.scratch import scratch_folder, temporary_files, temporary_files_of_children
from tests.cli.calls import child_environment

HOLDS = """
import sys, time
from sait_deploy.system.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_this_users_alone_and_removed(place: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == place and folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert list(place.iterdir()) == []


def test_an_error_removes_it_too(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder():
        _ = 1 / 0
    assert list(place.iterdir()) == []


def test_what_a_kill_left_is_swept_and_what_another_process_uses_is_not(place: Path) -> None:
    for name in ("sait-other", "sait-0123456789abcdef0", "other"):
        (place / name).mkdir()
    (place / "sait-0123456789abcdef").symlink_to(place / "other")
    command, environment = [sys.executable, "-c", HOLDS], child_environment(TMPDIR=str(place))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        theirs = Path(child.stdout.readline().strip())
        with scratch_folder():
            assert (theirs / "file").exists()
        os.kill(child.pid, signal.SIGKILL)
    assert (theirs / "file").exists()
    with scratch_folder():
        assert not theirs.exists()
    assert sorted(path.name for path in place.iterdir()) == [
        "other",
        "sait-0123456789abcdef",
        "sait-0123456789abcdef0",
        "sait-other",
    ]


def test_files_of_other_packages_lie_in_such_a_folder_for_a_while() -> None:
    before = tempfile.gettempdir()
    with temporary_files(), tempfile.TemporaryDirectory(prefix="other.") as other:
        held_in = Path(other).parent
        assert held_in.parent == Path(before) and held_in.name.startswith("sait-")
    assert tempfile.gettempdir() == before and not held_in.exists()


def test_a_place_is_found_without_writing_there(tmp_path: Path) -> None:
    code = (
        "import os, sys; written = []\n"
        "sys.addaudithook(lambda event, one: written.append(one) if event in ('os.mkdir', 'open') and "
        "str(one[0]).startswith(os.environ['TMPDIR']) else None)\n"
        "from sait_deploy.system.scratch import temporary_place\n"
        "import tempfile; print(temporary_place(), tempfile.gettempdir(), written)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], env=child_environment(TMPDIR=str(tmp_path)), text=True)
    assert said.split() == [str(tmp_path), str(tmp_path), "[]"]


def test_a_place_that_is_not_there_is_gone_past(tmp_path: Path) -> None:
    code = "from sait_deploy.system.scratch import temporary_place; print(temporary_place())"
    environment = child_environment(TMPDIR=str(tmp_path / "none"), TEMP=str(tmp_path))
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == str(tmp_path)


def test_children_of_another_package_keep_theirs_in_a_folder(tmp_path: Path) -> None:
    code = (
        "import tempfile; from sait_deploy.system.scratch import temporary_place; "
        "print(temporary_place(), tempfile.gettempdir())"
    )
    before = dict(os.environ)
    with temporary_files_of_children(tmp_path):
        said = subprocess.check_output([sys.executable, "-c", code], env=child_environment(), text=True)
    assert said.split() == [tempfile.gettempdir(), str(tmp_path)]
    assert dict(os.environ) == before
