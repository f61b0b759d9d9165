"""The build stage: a build that does not come to its end changes nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.engine.build import build_engine
from sait_deploy.engine.folder import ENGINES_FOLDER, Engine, engine_folders, open_engine
from sait_deploy.errors import EngineError, StorageError
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export
from sait_deploy.system.progress import Progress
from tests.engine.cases import ONE_TARGET, asked, files_of, workers
from tests.tiny import small_vit

pytestmark = pytest.mark.usefixtures("version")


def raising(error: BaseException, after: int) -> Progress:
    told: list[str] = []

    def progress(step: str, _: float | None = None, /) -> None:
        told.append(step)
        if len(told) > after:
            raise error

    return progress


def killing(step: str, _: float | None = None, /) -> None:
    for worker in workers() if not step.endswith("cutting and lowering") else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


Failure = tuple[Callable[[], Progress], dict[str, Any], type[BaseException]]
FAILURES: dict[str, Failure] = {
    "before the builder": (lambda: raising(KeyboardInterrupt(), 0), {}, KeyboardInterrupt),
    "while it builds": (lambda: raising(KeyboardInterrupt(), 20), {}, KeyboardInterrupt),
    "an error of the caller's": (lambda: raising(RuntimeError("mine"), 5), {}, RuntimeError),
    "killed": (lambda: killing, {}, EngineError),
    "no engine": (lambda: lambda *_: None, {"workspace_gib": 1e-9}, EngineError),
}


@pytest.mark.parametrize("earlier", ["an earlier engine", "none"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_build_that_does_not_end_changes_nothing(
    dense: Artifact, dense_engine: Engine, failure: str, earlier: str
) -> None:
    if earlier == "an earlier engine":
        shutil.copytree(dense_engine.path, dense.path / ENGINES_FOLDER / dense_engine.path.name)
    before = files_of(dense.path)
    watching, changes, error = FAILURES[failure]
    with pytest.raises(error):
        build_engine(dense, asked(**changes), watching())
    assert files_of(dense.path) == before
    assert not workers()
    for folder in engine_folders(dense):
        assert open_engine(dense, folder).manifest == dense_engine.manifest


def test_what_a_crash_left_is_put_right_at_the_next_build(dense: Artifact, dense_engine: Engine) -> None:
    engines = dense.path / ENGINES_FOLDER
    (engines / ".partial-x@999999999").mkdir(parents=True)
    shutil.copytree(dense_engine.path, engines / f".aside-{dense_engine.path.name}@999999999")
    with pytest.raises(EngineError):
        build_engine(dense, asked(workspace_gib=1e-9))
    assert engine_folders(dense) == [engines / dense_engine.path.name]
    assert [path.name for path in engines.iterdir()] == [dense_engine.path.name]


@pytest.mark.parametrize("graphs", [0, 2])
def test_a_full_disk_leaves_what_was_there(small_disk: Path, graphs: int) -> None:
    """With no room the graph that the builder is to be given cannot be written, with that of two the engine."""
    (artifact,) = export(small_vit(depth=1), ExportOptions(output=small_disk), name="m")
    room = graphs * artifact.model_path.stat().st_size
    state = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(state.f_bavail * state.f_frsize - room))
    before = files_of(small_disk)
    with pytest.raises(StorageError, match="no space left"):
        build_engine(artifact, ONE_TARGET)
    assert files_of(small_disk) == before


def test_engines_cannot_be_written_where_a_file_is_in_their_way(dense: Artifact) -> None:
    """A file stands for what permissions refuse: tests may run as root, whom nothing is refused."""
    (dense.path / ENGINES_FOLDER).write_text("mine")
    with pytest.raises(StorageError, match="cannot write under"):
        build_engine(dense, ONE_TARGET)
    assert (dense.path / ENGINES_FOLDER).read_text() == "mine"
