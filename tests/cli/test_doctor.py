"""``sait-deploy doctor``: every part is tried, and one that is there but broken is told from one that is not there."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

import sait_deploy
from sait_deploy.runtime.registry import RUNTIMES
from tests.cli.calls import Sait

PARTS = [
    *("versions", "NVIDIA driver"),
    *(runtime.task for runtime in RUNTIMES.values()),
    *("export", "demonstration model", "demonstration's thousand images", "reach a GPU"),
]
NEEDED_FOR_THESE_TESTS = ["run on ONNX Runtime CPU", "run in torch", "export", "demonstration model"]


def test_every_part_is_named_and_what_the_tests_need_works(sait: Sait) -> None:
    done = sait("doctor", "--json")
    assert (done.code, done.err) == (0, "")
    findings = json.loads(done.out)
    assert [finding["part"] for finding in findings] == PARTS
    states = {finding["part"]: finding["state"] for finding in findings}
    assert {states[part] for part in NEEDED_FOR_THESE_TESTS} == {"works"}
    for finding in findings:
        assert finding["detail"]
        assert bool(finding["hint"]) == (finding["state"] != "works")


def test_the_table_names_every_part(sait: Sait) -> None:
    heading, *lines = sait("doctor").out.splitlines()
    rows = [line for line in lines if not line.startswith(" ")]
    assert heading.split() == ["part", "state", "detail", "what", "to", "do"]
    assert [row[: len(part)] for row, part in zip(rows, PARTS, strict=True)] == PARTS


@pytest.fixture
def findings(process: Sait, tmp_path: Path) -> dict[str, dict[str, str]]:
    """What is found where packages of those names are there and fail in ways that broken installations do."""
    fakes = {
        "onnxruntime": "raise ImportError('libcudart.so.13: cannot open shared object file')",
        "torch": "raise OSError('undefined symbol: ncclCommInit\\nand more')",
        "timm": "raise RuntimeError('operator torchvision::nms does not exist')",
        "onnxscript": "__version__ = '0'",
        "tensorrt": "import nowhere_to_be_found",
        "tensorrt_rtx": "print('tensorrt_rtx is loaded')\n__version__ = '9.9'",
        "sklearn": "raise ValueError()",
    }
    for name, content in fakes.items():
        (tmp_path / "fakes" / name).mkdir(parents=True)
        (tmp_path / "fakes" / name / "__init__.py").write_text(content)
    done = process("doctor", "--json", PYTHONPATH=str(tmp_path / "fakes"))
    assert done.code == 0
    assert "tensorrt_rtx is loaded" in done.err, "what a package prints is kept out of the result"
    return {finding["part"]: finding for finding in json.loads(done.out)}


def test_broken_packages_are_found_broken(findings: dict[str, dict[str, str]]) -> None:
    details = {
        "run on ONNX Runtime CPU": "libcudart.so.13: cannot open shared object file",
        "run in torch": "undefined symbol: ncclCommInit",
        "export": "operator torchvision::nms does not exist",
        "demonstration's thousand images": "ValueError",
        "build with TensorRT for RTX": "tensorrt-rtx built no engine: AttributeError: module 'tensorrt_rtx' has no "
        "attribute 'ILogger'",
    }
    for part, detail in details.items():
        assert (findings[part]["state"], findings[part]["detail"]) == ("broken", detail)
        assert findings[part]["hint"].startswith("pip install 'sait-deploy[")


def test_a_package_whose_own_needs_are_missing_is_missing(findings: dict[str, dict[str, str]]) -> None:
    assert findings["build with TensorRT"]["state"] == "missing"
    assert findings["build with TensorRT"]["detail"] == "No module named 'nowhere_to_be_found'"


def test_a_missing_driver_is_told_from_a_missing_package(findings: dict[str, dict[str, str]]) -> None:
    """Where there is a driver, there is nothing to tell."""
    driver = findings["NVIDIA driver"]
    assert driver["state"] == "works" or "driver" in driver["detail"]
    for finding in (one for part, one in findings.items() if part not in ("versions", "NVIDIA driver")):
        assert ("pip install" in finding["hint"]) != ("see NVIDIA driver" in finding["hint"]) or not finding["hint"]


def test_versions_come_first(sait: Sait) -> None:
    first = json.loads(sait("doctor", "--json").out)[0]
    assert first["detail"].startswith(f"sait-deploy {sait_deploy.__version__}, Python {platform.python_version()}, ")
    assert platform.system() in first["detail"]


def test_one_broken_part_hides_no_other(findings: dict[str, dict[str, str]]) -> None:
    assert list(findings) == PARTS
    assert findings["demonstration model"]["state"] == "works"
