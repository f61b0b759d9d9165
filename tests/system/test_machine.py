"""What a report says of the machine it was measured on."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from sait_deploy.system.machine import environment, load_average, processor_name
from sait_deploy.system.processors import processors


def test_the_environment_names_the_machine() -> None:
    found = environment(None)
    assert found["processor"] == processor_name()
    assert found["processors usable"] == found["threads"] == str(processors())
    assert (found["python"], found["numpy"]) == (platform.python_version(), np.__version__)
    assert all(found.values())
    assert environment(3)["threads"] == "3"


def test_the_processor_has_a_name() -> None:
    assert processor_name().strip()


def test_a_machine_without_a_processor_file_is_named_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path, **_: object) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert processor_name() == (platform.processor() or platform.machine())


def test_the_load_is_three_averages() -> None:
    values = [float(part) for part in load_average().split()]
    assert len(values) == 3
    assert min(values) >= 0


def test_a_system_that_counts_no_load_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.getloadavg")
    assert load_average() == "unknown"
