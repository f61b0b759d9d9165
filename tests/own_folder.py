"""Packages that few tests need and the project does not: each installed into a folder of its own, kept between runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock


class NotMade(Exception):
    """Why an environment cannot be made here."""


def folder_of(package: str, version: str) -> Path:
    """Returns the folder to put before ``PYTHONPATH``, made when it is first asked for.

    Raises:
        NotMade: the package cannot be installed, for want of a network perhaps.
    """
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sait-deploy-tests"
    made = place / f"{package}-{version}-py{sys.version_info.major}{sys.version_info.minor}"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{made}.lock"):
        if not made.is_dir():
            _install(f"{package}=={version}", made)
    return made


def _install(wanted: str, made: Path) -> None:
    unfinished = made.with_name(f"{made.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unfinished), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMade(f"{wanted} cannot be installed: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
    unfinished.rename(made)
