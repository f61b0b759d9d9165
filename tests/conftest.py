"""What several test files share: artifacts of the demonstration model, and the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sait_deploy.artifacts.folder import Artifact
    from tests.exported import TinyExport

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def demo_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the demonstration model, dense and at density 0.6. Read it only: copy it to change it."""
    from sait_deploy import demo
    from sait_deploy.artifacts.manifest import WeightsSource
    from sait_deploy.exporting.plan import ExportOptions
    from sait_deploy.exporting.stage import export_model
    from sait_deploy.models.registry import WeightsRequest, load_model

    place = tmp_path_factory.mktemp("demo") / "artifacts"
    model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
    export_model(model, ExportOptions(densities=(Decimal("0.6"),), output=place))
    return place


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, as building leaves its own folders beside them."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("sait_deploy", "exporters", "plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(target), str(source)]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyExport:
    """A small timm model from a weights file, dense and at density 0.5. Read it only: copy it to change it."""
    from tests.exported import export_tiny

    return export_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_fp16(tmp_path_factory: pytest.TempPathFactory) -> TinyExport:
    """The same in half precision."""
    from sait_deploy.artifacts.manifest import Precision
    from sait_deploy.exporting.plan import ExportOptions
    from tests.exported import export_tiny

    return export_tiny(tmp_path_factory.mktemp("tiny-fp16"), ExportOptions(precision=Precision.FP16))


@pytest.fixture(scope="session")
def tiny_adaptive(tiny: TinyExport) -> Artifact:
    """The adaptive form of the small model from a weights file. Read it only: copy it to change it."""
    from tests.exported import export_adaptive

    return export_adaptive(tiny)


@pytest.fixture(scope="session")
def tiny_adaptive_fp16(tiny_fp16: TinyExport) -> Artifact:
    """The same in half precision."""
    from tests.exported import export_adaptive

    return export_adaptive(tiny_fp16)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
