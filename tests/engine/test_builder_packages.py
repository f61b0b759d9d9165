"""TensorRT for RTX as it is really asked, and whether the stand-in for TensorRT is shaped like NVIDIA's front end."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sait_deploy.engine import builder as native
from sait_deploy.engine.builder import BuildFailed, Cancelled, build
from tests.engine import recording
from tests.engine.cases import UNFUSABLE, attention_graph, bare_attention, builder_version, request_for
from tests.engine.native_cases import Heard, built

FRONTEND = """
import json, sys
import tensorrt as trt

found = {}
for kind, names in json.loads(sys.argv[1]).items():
    members = {name: getattr(getattr(trt, kind), name) for name in names}
    found[kind] = {name: int(x) if hasattr(x, "__int__") else x.__doc__ or "" for name, x in members.items()}
print(json.dumps([trt.__version__, found]))
"""


def shape_of_the_stand_in() -> dict[str, dict[str, Any]]:
    """Each class of it: of an enumeration its numbers, of the others their methods and attributes."""
    kinds = [kind for kind in vars(recording).values() if getattr(kind, "__module__", "") == recording.__name__]
    own = (recording.Recording, recording.Asked)
    return {kind.__name__: dict(members_of(kind)) for kind in kinds if isinstance(kind, type) and kind not in own}


def members_of(kind: type) -> Iterator[tuple[str, Any]]:
    members = {**vars(kind).get("__annotations__", {}), **vars(kind)}
    yield from ((name, member) for name, member in members.items() if not name.startswith("_"))


def parameters(described: str) -> list[str]:
    """Names of a method's parameters, as the bindings print them in its first line or in that of its first overload."""
    line = next(line for line in described.splitlines() if "->" in line)
    return re.findall(r"(\w+): ", line.split("->")[0])


def test_the_stand_in_has_the_names_numbers_and_parameters_of_the_front_end(pytestconfig: pytest.Config) -> None:
    """That of this machine, or the one that the tests of the plugins have laid out."""
    assert pytestconfig.cache is not None
    place, ours = pytestconfig.cache.mkdir("tensorrt-frontend"), shape_of_the_stand_in()
    paths = [str(place / "py"), os.environ.get("PYTHONPATH", "")]
    libraries = [str(place / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    command = [sys.executable, "-P", "-c", FRONTEND, json.dumps({kind: [*names] for kind, names in ours.items()})]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if "No module named 'tensorrt'" in done.stderr:
        pytest.skip("NVIDIA's front end is not here")
    assert done.returncode == 0, done.stderr
    _, theirs = json.loads(done.stdout)
    for kind, members in ours.items():
        for name, member in members.items():
            if isinstance(member, IntEnum):
                assert theirs[kind][name] == member, f"{kind}.{name}"
            elif inspect.isfunction(member):
                assert parameters(theirs[kind][name]) == [*inspect.signature(member).parameters], f"{kind}.{name}"


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations that TensorRT for RTX builds with from now on."""
    builder_version()
    import tensorrt_rtx

    found: list[Any] = []

    class Builder(tensorrt_rtx.Builder):  # type: ignore[misc]
        def create_builder_config(self) -> Any:
            found.append(super().create_builder_config())
            return found[-1]

    package = SimpleNamespace(**{**vars(tensorrt_rtx), "Builder": Builder})
    monkeypatch.setattr(native, "import_builder", lambda _: package)
    return found


def test_tensorrt_for_rtx_takes_every_flag_without_a_word(configs: list[Any], tmp_path: Path) -> None:
    import tensorrt_rtx as real

    heard = built(request_for(tmp_path, attention_graph(), opt_level=2, workspace_bytes=1 << 28))
    (config,) = configs
    assert not config.get_flag(real.BuilderFlag.TF32)
    assert config.get_flag(real.BuilderFlag.STRICT_NANS)
    assert config.profiling_verbosity == real.ProfilingVerbosity.DETAILED
    assert config.builder_optimization_level == 2
    assert config.get_memory_pool_limit(real.MemoryPoolType.WORKSPACE) == 1 << 28
    assert (config.num_optimization_profiles, config.num_compute_capabilities) == (1, 1)
    assert config.get_compute_capability(0) == real.ComputeCapability.SM89
    assert heard.context.errors == heard.warnings == []
    assert (tmp_path / "model.plan").stat().st_size > 1000


def test_tensorrt_for_rtx_stops_when_it_is_told_to(configs: list[Any], tmp_path: Path) -> None:
    heard = Heard(stop_at=0.1)
    with pytest.raises(Cancelled):
        build(request_for(tmp_path, attention_graph(blocks=50)), heard.context)
    assert max(share for _, share in heard.progress) < 0.5
    assert not (tmp_path / "model.plan").exists()


def test_tensorrt_for_rtx_says_why_it_returns_nothing(configs: list[Any], tmp_path: Path) -> None:
    heard = Heard()
    with pytest.raises(BuildFailed, match="no engine for the model"):
        build(request_for(tmp_path, bare_attention(UNFUSABLE), head=UNFUSABLE), heard.context)
    assert any("dedicated kernel" in error for error in heard.context.errors)
    assert not (tmp_path / "model.plan").exists()
