"""The wheel holds the whole package and nothing else, and so does a checkout that is merely on the path."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import click
import pytest

import sait_deploy
from sait_deploy.cli import EXTRAS
from sait_deploy.runtime.registry import RUNTIMES

ROOT = Path(__file__).parent.parent
HOMES = {"sait_deploy": "sait_deploy", "exporters": "sait_deploy/exporters", "plugins": "sait_deploy/plugins"}
"""Folder in the checkout to folder in the wheel."""


def files(folder: str) -> list[Path]:
    """Returns the files of a folder of the checkout, relative to it, without what running leaves."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(ROOT / folder) for path in found)


@pytest.fixture(scope="module")
def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_new_folder_is_packaged_without_being_listed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "setup.py", tmp_path)
    for package in ("sait_deploy", "sait_deploy/new_room", "exporters", "plugins", "plugins/new_operator", "tests"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    code = "from distutils.core import run_setup; print(*run_setup('setup.py', stop_after='init').packages)"
    command = [sys.executable, "-c", f"import setuptools; {code}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    new = ["sait_deploy.new_room", "sait_deploy.plugins.new_operator"]
    assert set(done.stdout.split()) == {"sait_deploy", "sait_deploy.exporters", "sait_deploy.plugins", *new}, (
        done.stderr
    )


def requirements(extra: str) -> set[str]:
    """Returns the distributions that an extra installs, with those of the extras it includes."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found: set[str] = set()
    for requirement in named[extra]:
        included = re.match(r"sait-deploy\[(.*)\]", requirement)
        parts = included[1].split(",") if included else []
        found |= set().union(*map(requirements, parts)) if parts else {re.split(r"[>=<;]", requirement)[0]}
    return found


def test_an_extra_that_a_hint_names_installs_the_package() -> None:
    """A runtime's may be one of several distributions, such as ``onnxruntime-gpu``."""
    renamed = {"sklearn": "scikit-learn", "skimage": "scikit-image"}
    for package, extras in EXTRAS.items():
        installed = set().union(*map(requirements, extras.split(",")))
        assert renamed.get(package, package.replace("_", "-")) in installed, package
    for name, runtime in RUNTIMES.items():
        prefix = runtime.package.replace("_", "-")
        assert any(found.startswith(prefix) for found in requirements(runtime.extra)), name


def test_every_folder_with_modules_is_a_package() -> None:
    for folder in HOMES:
        for path in files(folder):
            if path.suffix == ".py":
                assert (ROOT / folder / path.parent / "__init__.py").is_file(), f"{folder}/{path.parent}"


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_no_other(members: set[str]) -> None:
    expected = {(PurePosixPath(home) / path.as_posix()).as_posix() for f, home in HOMES.items() for path in files(f)}
    held = {name for name in members if ".dist-info/" not in name}
    assert held == expected
    assert {"sait_deploy/py.typed", "sait_deploy/demo/model.safetensors"} <= held
    assert sum(name.startswith("sait_deploy/demo/images/") for name in held) >= 10
    assert sum(name.endswith(".jpg") for name in held) >= 1


@pytest.mark.slow
def test_the_wheel_carries_its_licence_and_command(wheel: Path, members: set[str]) -> None:
    info = f"sait_deploy-{sait_deploy.__version__}.dist-info"
    assert f"{info}/licenses/LICENSE" in members
    with zipfile.ZipFile(wheel) as archive:
        assert "sait-deploy = sait_deploy.__main__:main" in archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
    assert f"Version: {sait_deploy.__version__}\n" in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    assert not [line for line in required if "torch" in line and "extra ==" not in line]


@pytest.mark.slow
def test_mypy_is_content_with_the_installed_wheel(wheel: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    place = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), str(wheel)]
    done = subprocess.run(pip, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pytestconfig.cache is not None
    cache = pytestconfig.cache.mkdir("mypy")  # most of the time goes into torch's own types
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*command, "--cache-dir", str(cache), "-p", "sait_deploy"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    modules = sum(path.suffix == ".py" for folder in HOMES for path in files(folder))
    examined = re.search(r"no issues found in (\d+) source files", done.stdout)
    assert examined is not None and int(examined[1]) >= modules, done.stdout


@pytest.mark.parametrize("path", [str(ROOT), ""], ids=["on PYTHONPATH", "as the current folder"])
def test_a_checkout_works_where_nothing_is_installed(tmp_path: Path, path: str) -> None:
    """With no site-packages at all, but for click, which the command line needs."""
    (tmp_path / "click").symlink_to(Path(click.__file__).parent)
    command = [sys.executable, "-S", "-m", "sait_deploy", "--version"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, str(tmp_path)]))}
    cwd = tmp_path if path else ROOT
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"sait-deploy, version {sait_deploy.__version__}\n"
    code = "from sait_deploy import exporters as e, plugins as p; print(e.__file__, p.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("exporters", "plugins")], done.stderr
