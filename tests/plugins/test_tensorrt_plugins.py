"""The TensorRT plugins, as NVIDIA's own front end sees them: what the driver would be given, and what comes of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from sait_deploy.plugins.pack_rows.reference import pack_rows
from sait_deploy.plugins.spec import TENSORRT_NAMESPACE
from sait_deploy.plugins.tensorrt_form import node_attributes
from tests.needed import no_gpu
from tests.plugins import driver
from tests.plugins.cases import large_batches
from tests.plugins.forms import assert_same_bits

ROOT = Path(__file__).parents[2]
TOOL = ROOT.parent / "shared" / "tools" / "tensorrt-frontend"
HOST = Path(__file__).with_name("tensorrt_host.py")
VARIES = -1

Question: TypeAlias = dict[str, Any]
Ask: TypeAlias = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def frontend(pytestconfig: pytest.Config) -> Path:
    """The folder in which NVIDIA's front end is laid out, kept from one run of the tests to the next."""
    if not TOOL.is_file():
        pytest.skip(f"there is no {TOOL.name}, which lays out NVIDIA's front end")
    assert pytestconfig.cache is not None
    place = pytestconfig.cache.mkdir("tensorrt-frontend")
    if not (place / "complete").is_file():
        command = ["bash", str(TOOL), sys.executable, str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NVIDIA's front end could not be laid out: {(done.stderr or done.stdout).strip()[-300:]}")
        (place / "complete").touch()
    return place


@pytest.fixture(scope="session")
def ask(frontend: Path) -> Ask:
    """Puts questions to the host, each time in a process of its own."""

    def put(*questions: Question, register: tuple[int, ...] = (90,)) -> list[dict[str, Any]]:
        paths = {"PYTHONPATH": f"{frontend / 'py'}{os.pathsep}{ROOT}", "LD_LIBRARY_PATH": str(frontend / "lib")}
        done = subprocess.run(
            [sys.executable, str(HOST)],
            input=json.dumps({"register": register, "questions": questions}),
            env={**os.environ, **paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["version"].startswith("11.4")
        answers: list[dict[str, Any]] = said["answers"]
        return answers

    return put


def select_question(prefix: int, patches: int, *batches: int, fixed: int = VARIES) -> Question:
    return {
        "name": "MassTokenSelect",
        "attributes": {"prefix": prefix},
        "shapes": [[fixed, patches], [fixed], [fixed, 2]],
        "run_with": [[[batch, patches], [batch], [batch, 2]] for batch in batches],
    }


def pack_question(tokens: int, *batches: int, fixed: int = VARIES) -> Question:
    return {
        "name": "PackRows",
        "attributes": {},
        "shapes": [[fixed, tokens], [fixed]],
        "run_with": [[[batch, tokens], [batch]] for batch in batches],
    }


def declared(answer: dict[str, Any]) -> list[str]:
    """The types of the kernel's parameters."""
    listed = re.search(r"\.entry \w+\((.*?)\)", answer["ptx"], re.DOTALL)
    assert listed is not None
    return [line.split()[1] for line in listed[1].split(",")]


def test_what_the_driver_is_given_to_select(ask: Ask) -> None:
    (answer,) = ask(select_question(1, 196, 1, 64))
    assert answer["outputs"] == ["INT32", "INT32"]
    assert answer["taken"] == [[kind, "LINEAR"] for kind in ("FLOAT", "FLOAT", "INT32", "INT32", "INT32")]
    assert answer["kinds"] == ["INT32", "INT32"]
    one, many = answer["runs"]
    inputs = ["input 0", "input 1", "input 2"]
    assert one["arguments"] == many["arguments"] == [*inputs, 196, 197, "output 0", "output 1"]
    assert (one["shapes"], many["shapes"]) == ([[1, 197], [1]], [[64, 197], [64]])
    assert (one["grid"], many["grid"]) == ([1, 1, 1], [64, 1, 1])
    assert one["block"] == many["block"] == [128, 1, 1]
    assert one["shared"] == many["shared"] == 1024


def test_what_the_driver_is_given_to_pack(ask: Ask) -> None:
    (answer,) = ask(pack_question(197, 1, 64))
    assert answer["outputs"] == ["INT32", "INT32"]
    assert answer["taken"] == [["INT32", "LINEAR"]] * 4
    assert answer["kinds"] == ["INT32", "INT32"]
    one, many = answer["runs"]
    assert one["arguments"] == ["input 0", "input 1", 1, 197, "output 0", "output 1"]
    assert many["arguments"] == ["input 0", "input 1", 64, 197, "output 0", "output 1"]
    assert (one["shapes"], many["shapes"]) == ([[197], [2]], [[12608], [65]])
    assert (one["grid"], many["grid"]) == ([1, 1, 1], [64, 1, 1])
    assert one["block"] == many["block"] == [128, 1, 1]


@pytest.mark.parametrize(("prefix", "patches"), [(0, 1), (5, 196), (1, 576), (2, 1024)])
def test_arguments_are_those_that_the_kernel_declares(ask: Ask, prefix: int, patches: int) -> None:
    tokens = prefix + patches
    for answer in ask(select_question(prefix, patches, 3), pack_question(tokens, 3)):
        (run,) = answer["runs"]
        kinds = [".u32" if isinstance(argument, int) else ".u64" for argument in run["arguments"]]
        assert declared(answer) == kinds
        assert f".reqntid {run['block'][0]}\n" in answer["ptx"]
        assert tokens in run["arguments"]
        assert run["shapes"] == ([[3, tokens], [3]] if kinds[2] == ".u64" else [[3 * tokens], [4]])


def test_a_fixed_batch_is_passed_too(ask: Ask) -> None:
    select, pack = ask(select_question(1, 196, 8, fixed=8), pack_question(197, 8, fixed=8))
    assert select["runs"][0]["shapes"] == [[8, 197], [8]]
    assert select["runs"][0]["grid"] == [8, 1, 1]
    assert pack["runs"][0]["arguments"][2:4] == [8, 197]


def test_defining_again_takes_the_newer_gpu(ask: Ask) -> None:
    for sm in (75, 90):
        for answer in ask(select_question(1, 64, 1), pack_question(65, 1), register=(80, sm, sm)):
            assert f".target sm_{sm}\n" in answer["ptx"]


def test_a_number_of_tokens_that_varies_is_an_error(ask: Ask) -> None:
    select, pack = ask(select_question(1, VARIES), pack_question(VARIES))
    assert "patch tokens varies" in select["error"]
    assert "tokens varies" in pack["error"]
    assert "only the batch may vary" in select["hint"] and "only the batch may vary" in pack["hint"]


def test_too_many_tokens_are_an_error(ask: Ask) -> None:
    select, pack = ask(select_question(1, 4097), pack_question(8193))
    assert "4097 patch tokens" in select["error"]
    assert "8193 tokens" in pack["error"]


def test_the_attributes_that_a_node_needs() -> None:
    """Names and types as TensorRT's parser reads them."""
    wanted = {"plugin_namespace": "ai_sait", "plugin_version": "1", "aot": 1}
    assert node_attributes() == wanted
    assert wanted["plugin_namespace"] == TENSORRT_NAMESPACE


@pytest.mark.parametrize("name", ["mass_token_select", "pack_rows"])
def test_without_tensorrt_defining_says_what_to_install(name: str) -> None:
    code = f"""
import sys
sys.modules["tensorrt"] = None
from sait_deploy.errors import MissingDependency
from sait_deploy.plugins.{name}.tensorrt_plugin import register
try:
    register(90)
except MissingDependency as error:
    print(error.message, "/", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("needs tensorrt, which is not installed / pip install 'sait-deploy[tensorrt]'\n")


@pytest.fixture(scope="session")
def _driver() -> None:
    if reason := driver.absent():
        no_gpu(reason)


@pytest.mark.usefixtures("_driver")
def test_the_driver_runs_what_it_is_given(ask: Ask) -> None:
    """That very PTX with exactly those arguments, without Triton and torch, and the reference's bits come out."""
    cases = [case for case in large_batches() if case[0].importance.shape[1] in (1, 10, 196, 1000, 4096)]
    questions = []
    for batch, keep, counts in cases:
        questions.append(select_question(batch.prefix, batch.importance.shape[1], len(counts)))
        questions.append(pack_question(keep.shape[1], len(counts)))
    answers = ask(*questions, register=(driver.capability(),))
    for (batch, keep, counts), select, pack in zip(cases, answers[::2], answers[1::2], strict=True):
        inputs = (batch.importance, batch.mass, batch.keep_limits)
        selected = driver.launch(select, select["runs"][0], inputs, fill=-7)
        packed = driver.launch(pack, pack["runs"][0], selected, fill=-7)
        wanted = (keep, counts, *pack_rows(keep, counts))
        for name, got, want in zip(("keep", "counts", "rows", "cu_seqlens"), (*selected, *packed), wanted, strict=True):
            assert_same_bits(f"{name}, keep {keep.shape}", got, want)
