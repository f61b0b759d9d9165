"""Which builder there is: found out in processes that have other packages, and told where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy.engine import choose
from sait_deploy.engine.choose import Builder, attention_form, choose_builder, installed, load_package
from sait_deploy.engine.cuda import Device, find_device
from sait_deploy.engine.options import (
    DEFAULT_TARGETS,
    AttentionChoice,
    BatchRange,
    BuilderChoice,
    EngineOptions,
    FusionChoice,
    Portability,
)
from sait_deploy.engine.packages import BuilderName
from sait_deploy.errors import BuilderUnavailable, InvalidArgument
from sait_deploy.exporters.names import AttentionForm, EnginePrecision
from tests.cli.calls import child_environment
from tests.engine.cases import RTX, TRT, builder_version

ON_ROWS = EngineOptions(attention=AttentionChoice.PACKED)

CHOOSE = """
import sys
blocked = set(sys.argv[1].split(","))


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())
from sait_deploy.engine.choose import choose_builder
from sait_deploy.engine.options import BuilderChoice, EngineOptions
from sait_deploy.errors import SaitError
try:
    found = choose_builder(EngineOptions(builder=BuilderChoice(sys.argv[2])))
    print(found.name, found.version, ",".join(found.targets), sep="|")
except SaitError as error:
    print(type(error).__name__, error.exit_code, error.message, error.hint, sep="|")
"""


@pytest.fixture
def no_gpu() -> None:
    if find_device() is not None:
        pytest.skip("there is a GPU, for which TensorRT would build")


def chosen(builder: BuilderChoice = BuilderChoice.AUTO, without: str = "", packages: Path | None = None) -> list[str]:
    """Chooses a builder in a process that lacks some packages, or has others in a folder before the installed ones."""
    environment = child_environment(**({} if packages is None else {"PYTHONPATH": str(packages)}))
    command = [sys.executable, "-c", CHOOSE, without, builder.value]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    return line.split("|")


def package(folder: Path, name: str, code: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    return folder


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("builder", [BuilderChoice.AUTO, BuilderChoice.TENSORRT_RTX])
def test_without_a_gpu_tensorrt_for_rtx_builds_for_the_common_ones(builder: BuilderChoice) -> None:
    assert choose_builder(EngineOptions(builder=builder)) == Builder(RTX, builder_version(), DEFAULT_TARGETS)


@pytest.mark.parametrize("builder", [BuilderChoice.AUTO, BuilderChoice.TENSORRT_RTX])
def test_a_gpu_that_tensorrt_for_rtx_does_not_know_is_named(
    builder: BuilderChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "find_device", lambda: Device("NVIDIA H200", "sm90"))
    monkeypatch.setattr(choose, "installed", lambda name: name is RTX)
    with pytest.raises(BuilderUnavailable, match=r"nothing for the NVIDIA H200 of this machine \(sm90\)") as caught:
        choose_builder(EngineOptions(builder=builder))
    assert "--builder tensorrt" in caught.value.hint and "--target" in caught.value.hint
    found = choose_builder(EngineOptions(builder=builder, targets=("sm89",)))
    assert found == Builder(RTX, builder_version(), ("sm89",))


@pytest.mark.parametrize("precision", EnginePrecision)
def test_targets_asked_for_are_those_built_for(precision: EnginePrecision) -> None:
    options = EngineOptions(targets=("sm80", "sm121"), precision=precision)
    assert choose_builder(options) == Builder(RTX, builder_version(), ("sm80", "sm121"))


@pytest.mark.parametrize("builder", [BuilderChoice.AUTO, BuilderChoice.TENSORRT_RTX])
def test_no_builder_is_installed(builder: BuilderChoice) -> None:
    assert chosen(builder, without="tensorrt_rtx,cuda") == [
        "BuilderUnavailable",
        "3",
        "tensorrt_rtx is not installed",
        "pip install 'sait-deploy[rtx]'",
    ]


@pytest.mark.skipif(installed(TRT), reason="TensorRT is installed")
def test_tensorrt_is_not_installed() -> None:
    with pytest.raises(BuilderUnavailable, match="tensorrt is not installed") as caught:
        choose_builder(EngineOptions(builder=BuilderChoice.TENSORRT))
    assert caught.value.hint == "pip install 'sait-deploy[tensorrt]'"
    with pytest.raises(BuilderUnavailable):
        load_package(BuilderName.TENSORRT)


@pytest.mark.usefixtures("no_gpu")
def test_tensorrt_needs_a_gpu_and_is_not_chosen_one(tmp_path: Path) -> None:
    packages = package(tmp_path, "tensorrt", "__version__ = '11.4.0'\n")
    assert chosen(packages=packages) == ["tensorrt-rtx", builder_version(), ",".join(DEFAULT_TARGETS)]
    kind, code, message, hint = chosen(BuilderChoice.TENSORRT, packages=packages)
    assert (kind, code) == ("BuilderUnavailable", "3")
    assert "no GPU can be used here" in message
    assert "--builder tensorrt-rtx" in hint


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('libnvinfer.so.10: cannot open shared object file\\nmore of it')",
        "import ctypes\nctypes.CDLL('libnvinfer_that_is_not_there.so')",
    ],
)
def test_a_package_that_cannot_be_loaded(tmp_path: Path, code: str) -> None:
    kind, number, message, hint = chosen(packages=package(tmp_path, "tensorrt_rtx", code))
    assert (kind, number) == ("BuilderUnavailable", "3")
    assert message.startswith("tensorrt_rtx is installed but cannot be loaded (libnvinfer")
    assert "reinstall" in hint


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(builder=BuilderChoice.TENSORRT, targets=("sm86",)),
        EngineOptions(builder=BuilderChoice.TENSORRT_RTX, portability=frozenset({Portability.VERSIONS})),
        EngineOptions(timing_cache=Path("cache"), targets=("sm86",)),
    ],
)
def test_what_a_builder_cannot_do_is_said_before_it_is_looked_for(options: EngineOptions) -> None:
    with pytest.raises(InvalidArgument):
        choose_builder(options)


def test_choosing_does_not_depend_on_the_batch() -> None:
    options = EngineOptions(targets=("sm86",), batch=BatchRange(1, 1, 1))
    assert choose_builder(options) == choose_builder(EngineOptions(targets=("sm86",)))


@pytest.mark.parametrize(
    ("builder", "options", "form"),
    [
        (Builder(BuilderName.TENSORRT, "11.4.0.106", ()), EngineOptions(), AttentionForm.FUSED_LENGTHS),
        (Builder(BuilderName.TENSORRT, "11.4.0.106", ()), ON_ROWS, AttentionForm.PACKED),
        (Builder(BuilderName.TENSORRT, "10.16.1", ()), EngineOptions(), AttentionForm.FUSED),
        (Builder(BuilderName.TENSORRT_RTX, "1.7.1", ("sm86",)), EngineOptions(), AttentionForm.FUSED),
        (
            Builder(BuilderName.TENSORRT, "11.4.0", ()),
            EngineOptions(precision=EnginePrecision.FP32),
            AttentionForm.DECOMPOSED,
        ),
        (
            Builder(BuilderName.TENSORRT, "11.4.0", ()),
            EngineOptions(fusion=FusionChoice.ALLOWED_UNFUSED),
            AttentionForm.DECOMPOSED,
        ),
    ],
)
def test_attention_is_told_lengths_where_the_builder_takes_them(
    builder: Builder, options: EngineOptions, form: AttentionForm
) -> None:
    assert attention_form(builder, options) is form


def test_packed_rows_are_refused_where_the_builder_has_no_attention_on_them() -> None:
    with pytest.raises(InvalidArgument, match=r"tensorrt 10\.16\.1 has no attention on packed rows") as caught:
        attention_form(Builder(BuilderName.TENSORRT, "10.16.1", ()), ON_ROWS)
    assert "leave --attention out" in caught.value.hint
