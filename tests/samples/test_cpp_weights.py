"""The C++ sample gives an engine without weights those that Python wrote, or says in a line why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.engine.lowering import lower_parts, lowering_of
from sait_deploy.engine.options import BuilderChoice, EngineOptions
from sait_deploy.engine.profiles import PartName
from sait_deploy.engine.weights import weights_of
from tests.exported import TinyExport, copied
from tests.runtime.host_builder import build_on_host
from tests.samples.cpp_parts import MODEL, SAMPLE, artifact, dense_golden, refusal, run

ROOT = Path(__file__).parents[2]
WEIGHTS = {"float16 head.bias": np.arange(6, dtype=np.uint8), "int8 scale": np.array([7, 9], np.uint8)}
ASKED = "weights float16 head.bias 3\nweights int8 scale 2\n"


def stripped(folder: Path, asked: str = ASKED, **weights: np.ndarray[Any, Any]) -> tuple[Path, Path]:
    """Writes an artifact with an engine that has no weights, and the weights; returns both folders."""
    engine = artifact(folder, dense_golden(), model=MODEL + asked)
    (engine / "manifest.json").write_text(json.dumps({"stripped": True}, indent=2), encoding="utf-8")
    np.savez(folder / "model.npz", **(WEIGHTS | weights))  # type: ignore[arg-type]
    return engine, folder


def test_an_engine_without_weights_is_given_them(run_engine: Path, tmp_path: Path) -> None:
    engine, weights = stripped(tmp_path, other=np.zeros(1, np.uint8))
    done = run(run_engine, engine, "--weights", weights)
    assert done.returncode == 0, done.stderr
    given = [line for line in done.stderr.splitlines() if "weights" in line]
    assert given == ["upload weights head.bias, sum 15", "upload weights scale, sum 16"], (
        "what it asks for, and no more"
    )


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("weights float16 head.bias 4\n", "asks for 4 numbers of float16 head.bias, which {} lacks; write it for this"),
        ("weights float32 head.bias 3\n", "asks for 3 numbers of float32 head.bias, which {} lacks"),
        ("weights int8 other 2\n", "asks for 2 numbers of int8 other, which {} lacks"),
        ("weights int8 hidden 2\n", "asks for hidden, which {} lacks"),
        ("weights int8 odd 1\n", "refuses weights odd: odd weights"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(run_engine: Path, tmp_path: Path, asked: str, why: str) -> None:
    engine, weights = stripped(tmp_path, asked, **{"int8 odd": np.zeros(1, np.uint8)})
    line = refusal(run(run_engine, engine, "--weights", weights))
    assert line.startswith(f"model.plan {why.format(weights / 'model.npz')}")


def test_an_engine_without_weights_says_how_they_are_given(run_engine: Path, tmp_path: Path) -> None:
    engine, weights = stripped(tmp_path)
    assert refusal(run(run_engine, engine)) == (
        f"{engine} was built without weights; write them with write_weights.py, and give their folder: --weights FOLDER"
    )
    assert "model.npz does not exist" in refusal(run(run_engine, engine, "--weights", engine))
    (weights / "model.npz").write_bytes(b"nothing")
    assert refusal(run(run_engine, engine, "--weights", weights)).endswith("write it again: write_weights.py")


def test_the_weights_of_a_real_graph_arrive_under_the_names_that_an_engine_asks_for(
    run_engine: Path, tmp_path: Path, tiny: TinyExport
) -> None:
    """Written by write_weights.py, read and put in by the program."""
    options = EngineOptions(BuilderChoice.TENSORRT, strip_weights=True)
    built = build_on_host(copied(tiny.half, tmp_path).path, options)
    script = [sys.executable, SAMPLE / "write_weights.py", built.path, tmp_path / "weights"]
    done = subprocess.run(
        script, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout.split()) == (0, [str(tmp_path / "weights" / "model.npz")]), done.stderr
    lowered = lower_parts(tiny.half, lowering_of(built.manifest), tmp_path)[PartName.MODEL]
    halves = {name: array for name, array in weights_of(lowered.path).items() if array.dtype == np.float16}
    assert "vit.head.weight_f16" in halves
    asked = "".join(f"weights float16 {name} {array.size}\n" for name, array in halves.items())
    engine, _ = stripped(tmp_path / "double", asked)
    given = run(run_engine, engine, "--weights", tmp_path / "weights")
    assert given.returncode == 0, given.stderr
    sums = [f"upload weights {name}, sum {sum(array.tobytes())}" for name, array in halves.items()]
    assert [line for line in given.stderr.splitlines() if "weights" in line] == sums
    for words in ([built.path], [tmp_path / "double" / "engines" / "double", tmp_path], [built.path, script[1]]):
        refused = subprocess.run(
            [*script[:2], *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert refused.returncode == 1 and refused.stderr.startswith("error: ") and "Traceback" not in refused.stderr
