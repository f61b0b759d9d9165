"""What imports what: rooms import downwards alone, the command line starts light, and running needs no torch."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.cli import COMMANDS

ROOT = Path(__file__).parent.parent
PRUNED = "sait_demo_digits-density0.6"
HEAVY = (
    "torch",
    "timm",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "numpy",
    "PIL",
    "rich",
    "pydantic",
    "jinja2",
    "matplotlib",
)
QUICK = ("--batch", "1", "--duration", "0.01", "--warmup", "0")

BLOCKED = """
import sys

BLOCKED = {"torch", "timm", "torchvision", "onnxscript", "onnx_ir", "onnx_graphsurgeon", "safetensors"}


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())
"""


def python(code: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, with this checkout before whatever is installed."""
    places = filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "import sait_deploy",
        "import sait_deploy.cli",
        "import sait_deploy.errors, sait_deploy.tokens",
        "from sait_deploy.cli import run\ntry: run(['--help'])\nexcept SystemExit: pass",
        "from sait_deploy.cli import run\ntry: run(['--version'])\nexcept SystemExit: pass",
        "from sait_deploy.cli import run\ntry: run(['exprot'])\nexcept SystemExit: pass",
    ],
)
def test_starting_imports_nothing_heavy(code: str) -> None:
    report = (
        f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"
    )
    done = python(code + report)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []


ROOMS = (
    *("errors", "system", "reports"),
    *("plugins", "tokens", "demo"),
    *("exporters", "images"),
    "artifacts",
    *("engine", "models"),
    *("runtime", "training"),
    *("exporting", "bench", "doctor", "prediction"),
    "evaluation",
    *("quantization", "recommending"),
    "report_files",
    *("serving", "batch", "triton_repository"),
    *("cli", "__main__"),
)
"""From the ground up: a module imports its own room and those before it, wherever in the module the import stands."""

NEED_MORE_THAN_A_RUNTIME = ("models", "training", "exporting", "exporters")
"""Rooms whose modules may need torch or what edits graphs: they export and train."""

ELSEWHERE_TOO = (
    *("torch", "torch_cuda", "torch_cuda_batch", "torch_cuda_dense", "torch_cuda_trial", "cuda_graphs"),
    *("exact_float32", "device_rates", "torch_op", "flash_attention", "lanes", "lowering", "weights", "tune_search"),
)
"""Modules of other rooms that need it, each imported by others when it is needed."""


def files() -> dict[str, Path]:
    """Every module of the package by its import name, wherever in the checkout it lies."""
    found = {}
    for folder in ("sait_deploy", "exporters", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            names = parts if folder == "sait_deploy" else ("sait_deploy", *parts)
            found[".".join(names).removesuffix(".__init__")] = file
    return found


def room_of(module: str) -> str:
    return module.split(".")[1]


def rooms_imported(file: Path) -> set[str]:
    """The rooms that a file imports from anywhere in it, also where only a type checker looks."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "sait_deploy":
            found |= {alias.name for alias in node.names if alias.name in ROOMS}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("sait_deploy."):
            found.add(room_of(str(node.module)))
        elif isinstance(node, ast.Import):
            found |= {room_of(alias.name) for alias in node.names if alias.name.startswith("sait_deploy.")}
    return found


def test_rooms_import_downwards_alone() -> None:
    modules = {name: file for name, file in files().items() if name != "sait_deploy"}
    assert {room_of(name) for name in modules} == set(ROOMS)
    upward = [
        f"{name} imports {room}"
        for name, file in modules.items()
        for room in rooms_imported(file)
        if ROOMS.index(room) > ROOMS.index(room_of(name))
    ]
    assert upward == []


def test_every_module_says_in_its_first_line_what_it_holds() -> None:
    for name, file in files().items():
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        assert len(said.partition("\n")[0]) > 10, name


def test_what_bears_no_underscore_in_the_command_lines_room_is_a_command() -> None:
    named = {file.stem for file in (ROOT / "sait_deploy" / "cli").glob("*.py")}
    commands = {f"sait_deploy.cli.{stem}" for stem in named if not stem.startswith("_")}
    assert {entry.module for entry in COMMANDS.values()} == commands


IMPORT_EACH = f"""{BLOCKED}
import importlib, json
refused = []
for name in sys.argv[1:]:
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "sait_deploy"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception as error:
        if "torch" not in str(error) and getattr(error, "name", None) not in BLOCKED:
            raise
        refused.append(name)
print(json.dumps(refused))
"""


def test_only_exporting_training_building_engines_and_the_torch_runtime_import_more_than_a_runtime() -> None:
    """Each module is the first to be imported, so that none needs another to have been."""
    done = python(IMPORT_EACH, *(name for name in files() if not name.endswith(".__main__")))
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)
    assert {"sait_deploy.runtime.torch", "sait_deploy.exporters.trace"} <= set(refused)
    light = [name for name in refused if room_of(name) not in NEED_MORE_THAN_A_RUNTIME]
    assert {name.rpartition(".")[2] for name in light} <= set(ELSEWHERE_TOO), light


def cli_without_torch(cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return python(f"{BLOCKED}\nfrom sait_deploy.cli import run\nrun()", *arguments, cwd=cwd)


def test_bench_and_predict_run_without_torch(demo_workspace: Path, tmp_path: Path) -> None:
    options = (*QUICK, "--images", demo.IMAGES, "-o", "report.html")
    bench = cli_without_torch(tmp_path, "bench", demo_workspace / PRUNED, *options)
    assert bench.returncode == 0, bench.stderr
    assert "density 0.6" in bench.stdout
    where = ("--artifact", demo_workspace / PRUNED, "--visualize", "pictures")
    predict = cli_without_torch(tmp_path, "predict", demo.IMAGES / "3", *where)
    assert predict.returncode == 0, predict.stderr
    assert len(list((tmp_path / "pictures").iterdir())) == 4
    inspect = cli_without_torch(tmp_path, "inspect", demo_workspace / PRUNED)
    assert inspect.returncode == 0, inspect.stderr


def test_an_adaptive_artifact_runs_without_torch(tiny_adaptive: Artifact, tmp_path: Path) -> None:
    bench = cli_without_torch(tmp_path, "bench", tiny_adaptive.path, *QUICK, "--images", demo.IMAGES, "-o", "r.json")
    assert bench.returncode == 0, bench.stderr
    where = ("--artifact", tiny_adaptive.path, "--point", "fast", "--visualize", "pictures")
    predict = cli_without_torch(tmp_path, "predict", demo.IMAGES / "3", *where)
    assert predict.returncode == 0, predict.stderr
    assert len(list((tmp_path / "pictures").iterdir())) == 5
    inspect = cli_without_torch(tmp_path, "inspect", tiny_adaptive.path)
    assert inspect.returncode == 0, inspect.stderr


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["export"], "torch"),
        (["train"], "torch"),
        (["models"], "timm"),
        (["predict", demo.IMAGES, "--runtime", "torch"], "torch"),
        (["predict", demo.IMAGES, "--runtime", "torch-cuda"], "torch"),
        (["inspect", "--check"], "torch"),
    ],
)
def test_what_needs_torch_says_so_and_how_to_get_it(
    demo_workspace: Path, tmp_path: Path, arguments: list[object], package: str
) -> None:
    place = [] if arguments[0] in ("export", "train", "models") else ["--workspace", demo_workspace]
    done = cli_without_torch(tmp_path, *arguments, *place)
    assert (done.returncode, done.stdout) == (3, "")
    error, hint = [line for line in done.stderr.splitlines() if not line.startswith("- ")]
    assert error.startswith("error: ")
    assert f"needs {package}, which is not installed" in error
    assert hint.startswith("hint: pip install 'sait-deploy[export")
    assert not list(tmp_path.iterdir()), "something was written"


@pytest.mark.slow
def test_a_fresh_environment_with_only_a_runtime(wheel: Path, demo_workspace: Path, tmp_path: Path) -> None:
    """The wheel and its ``cpu`` extra from the package registry: no torch, no timm, no checkout."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    binaries = environment / ("Scripts" if os.name == "nt" else "bin")
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}

    def call(*command: object) -> subprocess.CompletedProcess[str]:
        program, *arguments = map(str, command)
        return subprocess.run(
            [str(binaries / program), *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )

    installed = call("python", "-m", "pip", "install", "--quiet", f"{wheel}[cpu]")
    assert installed.returncode == 0, installed.stderr
    for package in ("torch", "timm", "onnxscript"):
        assert call("python", "-c", f"import {package}").returncode != 0

    bench = call("sait-deploy", "bench", demo_workspace / PRUNED, *QUICK, "-o", "report.json")
    assert bench.returncode == 0, bench.stderr
    assert "shipped held-out digits" in bench.stderr, "there is no scikit-learn to compose others with"
    assert json.loads((tmp_path / "report.json").read_text())["rows"]
    predict = call("sait-deploy", "predict", demo.IMAGES / "3", "--artifact", demo_workspace / PRUNED, "--json")
    assert predict.returncode == 0, predict.stderr
    assert len(json.loads(predict.stdout)) == 4
    export = call("sait-deploy", "export", "--density", "0.6")
    assert (export.returncode, export.stdout) == (3, "")
    assert export.stderr.splitlines()[-2:] == [
        "error: this command needs torch, which is not installed",
        "hint: pip install 'sait-deploy[export,cpu]'",
    ]
    assert not (tmp_path / "artifacts").exists()
    doctor = json.loads(call("sait-deploy", "doctor", "--json").stdout)
    states = {finding["part"]: finding["state"] for finding in doctor}
    assert states["run on ONNX Runtime CPU"] == states["demonstration model"] == "works"
    assert states["run in torch"] == states["export"] == "missing"
