"""The command on a Ray of its own: killed, resumed, and every image there once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.system.children import child_environment
from tests.batch.jobs import images_in, rows

pytest.importorskip("ray", reason="Ray has no wheel here")

START_SECONDS = 240
SHARD = 10


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path for Ray's folders, as those of a killed command stay."""
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def many_images(folder: Path, copies: int) -> Path:
    first = images_in(folder / "copy00")
    for number in range(1, copies):
        shutil.copytree(first, folder / f"copy{number:02d}", copy_function=os.link)
    return folder


def command(images: Path, output: Path, artifact: Artifact) -> list[str]:
    options = ["--artifact", artifact.path, "--shard", SHARD, "--batch", 1, "--threads", 1, "--json"]
    return [sys.executable, "-m", "sait_deploy", "batch", *map(str, [images, "-o", output, *options])]


def environment() -> dict[str, str]:
    """Ray's processes would have the lowest priority, and other tests all of a small machine."""
    return child_environment() | {"RAY_worker_niceness": "0"}


def parts(output: Path) -> int:
    return len(list(output.glob("*.parquet")))


def wait_for(found: Callable[[], bool], process: subprocess.Popen[bytes], said: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not found():
        assert process.poll() is None and time.monotonic() < give_up, said.read_text()
        time.sleep(0.02)


def actors(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "MapWorker" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_job_killed_and_resumed_has_every_image_once(
    tiny_adaptive: Artifact, tmp_path: Path, temporary: Path
) -> None:
    images, output = many_images(tmp_path / "images", 20), tmp_path / "out"
    call, said = command(images, output, tiny_adaptive), tmp_path / "said.txt"
    with said.open("wb") as stream, subprocess.Popen(call, env=environment(), stdout=stream, stderr=stream) as process:
        wait_for(lambda: parts(output) >= 2, process, said)
        (actor,) = actors(process)
        actor.kill()
        seen = parts(output)
        # The command hears of a shard some time after its file is there.
        wait_for(lambda: parts(output) >= seen + 3 and "a process ended" in said.read_text(), process, said)
        left = actors(process)
        process.kill()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive, "processes that compute outlive the command"
    before = parts(output)
    assert 4 <= before < 82 and not (output / "_SUCCESS").exists()
    done = subprocess.run(call, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"resuming: {before * SHARD} of 820 images are there" in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["broken"], summary["shards"], summary["resumed"]) == (820, 20, 82, before)
    found = rows(output)
    assert sorted(found) == sorted(file.relative_to(images).as_posix() for file in images.rglob("*.png"))
    assert sum(row["error"] is not None for row in found.values()) == 20
    assert json.loads((output / "_SUCCESS").read_text())["images"] == 820
    again = subprocess.run(call, env=environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 0 and json.loads(again.stdout)["resumed"] == 82
    assert "Ray" not in again.stderr, "nothing is left to compute"
