"""What several test files share: artifacts of the demonstration model, and the wheel."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings

from tests.needed import no_gpu
from tests.shared import FOLDER, made_once

if TYPE_CHECKING:
    import torch

    from sait_deploy.artifacts.folder import Artifact
    from tests.exported import TinyExport

ROOT = Path(__file__).parent.parent

# Each worker process has one processor's share, and on matrices this small a second thread costs more than it saves.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the processor to the other workers

# pytest-xdist tells its workers a width, at which tables fold.
os.environ.pop("COLUMNS", None)

# How long an example takes depends on what else runs on the machine. The same tree has the same examples each time;
# ``make fuzz`` looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


_FINDS_GPU: Final = frozenset({"gpu", "_driver"})


def pytest_configure(config: pytest.Config) -> None:
    """Makes the folder that the workers of a run share, and lets Ctrl-C reach the processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background, from where it is inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if FOLDER not in os.environ:
        os.environ[FOLDER] = folder = tempfile.mkdtemp(prefix="sait-deploy-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that run on a GPU alone, known by the fixture that looks for it."""
    for item in items:
        if not _FINDS_GPU.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.gpu)


def pytest_collection_finish() -> None:
    """Leaves all that was imported out of garbage collection, which would go through a million objects each time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Each test starts with torch on one thread, whatever a test before has set in the whole process."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_workspace() -> Path:
    """A workspace with the demonstration model, dense and at density 0.6. Read it only: copy it to change it."""
    from sait_deploy import demo
    from sait_deploy.artifacts.manifest import WeightsSource
    from sait_deploy.exporting.plan import ExportOptions
    from sait_deploy.exporting.stage import export_model
    from sait_deploy.models.registry import WeightsRequest, load_model

    def export(folder: Path) -> Path:
        model = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
        export_model(model, ExportOptions(densities=(Decimal("0.6"),), output=folder / "artifacts"))
        return folder / "artifacts"

    return made_once("demo", export)


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel, built from a copy of the sources, as building leaves its own folders beside them."""

    def build(folder: Path) -> Path:
        source, target = folder / "source", folder / "wheel"
        for name in ("sait_deploy", "exporters", "plugins"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source / name)
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(target), str(source)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (built,) = target.glob("*.whl")
        return built

    return made_once("wheel", build)


@pytest.fixture(scope="session")
def tiny() -> TinyExport:
    """A small timm model from a weights file, dense and at density 0.5. Read it only: copy it to change it."""
    from tests.exported import export_tiny

    return made_once("tiny", export_tiny)


@pytest.fixture(scope="session")
def tiny_fp16() -> TinyExport:
    """The same in half precision."""
    from sait_deploy.artifacts.manifest import Precision
    from sait_deploy.exporting.plan import ExportOptions
    from tests.exported import export_tiny

    return made_once("tiny-fp16", lambda folder: export_tiny(folder, ExportOptions(precision=Precision.FP16)))


@pytest.fixture(scope="session")
def tiny_adaptive(tiny: TinyExport) -> Artifact:
    """The adaptive form of the small model from a weights file. Read it only: copy it to change it."""
    from tests.exported import export_adaptive

    return made_once("tiny-adaptive", lambda _: export_adaptive(tiny))


@pytest.fixture(scope="session")
def embedders(tiny: TinyExport) -> list[Artifact]:
    """The small model's dense, density and adaptive artifacts, its classifier left out. Read them only."""
    from tests.exported import export_embedders

    return made_once("embedders", lambda folder: export_embedders(tiny, folder))


@pytest.fixture(scope="session")
def projecting() -> Artifact:
    """The demonstration model's dense artifact that embeds by its head, to fewer numbers than a token has."""
    from tests.exported import export_projecting

    return made_once("projecting", export_projecting)


@pytest.fixture(scope="session")
def tiny_adaptive_fp16(tiny_fp16: TinyExport) -> Artifact:
    """The same in half precision."""
    from tests.exported import export_adaptive

    return made_once("tiny-adaptive-fp16", lambda _: export_adaptive(tiny_fp16))


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The CUDA device. Without one its tests are skipped, or, where a GPU is said to be needed, fail."""
    import torch

    if not torch.cuda.is_available():
        no_gpu(f"torch {torch.__version__} finds no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


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
