"""What several test files share: artifacts of the demonstration model, and the wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def demo_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the demonstration model, dense and at density 0.6. Read it only: copy it to change it."""
    from sait_deploy import demo
    from sait_deploy.export_plan import ExportOptions
    from sait_deploy.exporting import export_model
    from sait_deploy.manifest import WeightsSource
    from sait_deploy.zoo import WeightsRequest, load_model

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
