"""Loading: artifacts are checked first, and a runtime is the one asked for or an error."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from sait_deploy.artifacts.manifest import Precision
from sait_deploy.errors import ArtifactError, InvalidArgument, RuntimeUnavailable
from sait_deploy.runtime import Runner, RunOptions, load, registry
from sait_deploy.runtime.precision import RunPrecision
from tests.exported import TinyExport, copied, graph_of, with_graph
from tests.runtime.cases import GOOD, ONE_THREAD, RUNTIMES


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("threads", [1, 2, None])
def test_the_number_of_threads_changes_no_answer(tiny: TinyExport, runtime: str, threads: int | None) -> None:
    expected = load(tiny.half, runtime, ONE_THREAD).run(GOOD)
    found = load(tiny.half, runtime, RunOptions(threads=threads)).run(GOOD)
    torch.set_num_threads(1)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.kept, expected.kept)


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**9, 1.5, "2", True])
def test_numbers_of_threads_that_cannot_be_had(threads: Any) -> None:
    with pytest.raises(InvalidArgument, match="threads") as caught:
        RunOptions(threads=threads)
    assert "1 to 1024" in caught.value.hint


@pytest.mark.parametrize("runtime", ["tensorflow", "", "ONNXRUNTIME", "onnxruntime "])
def test_an_unknown_runtime_is_refused_with_those_known(tiny: TinyExport, runtime: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown runtime") as caught:
        load(tiny.half, runtime)
    assert repr(runtime) in caught.value.message
    assert all(name in caught.value.hint for name in registry.RUNTIMES)


def test_arguments_of_other_types(tiny: TinyExport) -> None:
    runtime: Any = []
    with pytest.raises(InvalidArgument, match="unknown runtime"):
        load(tiny.dense, runtime)
    options: Any = None
    with pytest.raises(InvalidArgument, match="None are no options"):
        load(tiny.dense, options=options)


@pytest.mark.parametrize("name", registry.RUNTIMES)
def test_a_runtimes_class_states_the_name_of_its_entry(name: str) -> None:
    entry = registry.RUNTIMES[name]
    runner = getattr(importlib.import_module(entry.module), entry.runner)
    assert (issubclass(runner, Runner), runner.runtime) == (True, name)
    assert entry.compared_with in registry.RUNTIMES


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_precision_that_a_runtime_has_not_is_refused_with_those_it_has(tiny: TinyExport, runtime: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{runtime} cannot run .* which is fp32, in bf16") as caught:
        load(tiny.half, runtime, RunOptions(precision=RunPrecision.BF16))
    assert caught.value.hint == "use fp32"


def test_a_runtime_that_runs_no_int8_artifact_names_those_that_do(tiny: TinyExport) -> None:
    manifest = dataclasses.replace(tiny.half.manifest, dtype=Precision.INT8)
    with pytest.raises(InvalidArgument, match="torch runs no int8 artifact") as caught:
        load(dataclasses.replace(tiny.half, manifest=manifest), "torch")
    assert "onnxruntime" in caught.value.hint


def test_an_unknown_runtime_is_refused_before_the_artifact_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        load(tmp_path / "none", "tensorflow")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_artifacts_are_opened_by_path_too(tiny: TinyExport, runtime: str) -> None:
    for path in (tiny.half.path, str(tiny.half.path)):
        runner = load(path, runtime, ONE_THREAD)
        assert runner.runtime is runtime
        assert runner.artifact == tiny.half


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_artifact_is_not_loaded(tiny: TinyExport, tmp_path: Path, runtime: str) -> None:
    artifact = copied(tiny.half, tmp_path)
    with artifact.model_path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ArtifactError, match="SHA-256"):
        load(artifact.path, runtime)
    artifact.model_path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        load(artifact.path, runtime)


def test_a_graph_that_onnxruntime_cannot_load_is_one_line(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = copied(tiny.half, tmp_path)
    model = graph_of(artifact)
    del next(node for node in model.graph.node if node.op_type == "Add").input[1:]
    with pytest.raises(RuntimeUnavailable, match="cannot load the model") as caught:
        load(with_graph(artifact, model).path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("newer", ["opset", "IR"])
def test_a_runtime_older_than_the_model_says_so(tiny: TinyExport, tmp_path: Path, newer: str) -> None:
    artifact = copied(tiny.half, tmp_path)
    model = graph_of(artifact)
    if newer == "opset":
        next(one for one in model.opset_import if one.domain == "").version = 99
    else:
        model.ir_version = 99
    with pytest.raises(RuntimeUnavailable, match=r"is too old for the model: it knows .* the model has 99") as caught:
        load(with_graph(artifact, model).path)
    assert newer in caught.value.message
    assert "newer onnxruntime" in caught.value.hint


def test_the_environment_says_what_ran(tiny: TinyExport) -> None:
    import onnxruntime

    assert load(tiny.half, options=ONE_THREAD).environment == {
        "runtime": "onnxruntime",
        "onnxruntime": onnxruntime.__version__,
        "provider": "CPUExecutionProvider",
    }
    assert load(tiny.half, "torch", ONE_THREAD).environment == {
        "runtime": "torch",
        "torch": torch.__version__,
        "device": "cpu",
    }


def test_weights_outside_the_graph_are_not_read_from_elsewhere(tiny: TinyExport, tmp_path: Path) -> None:
    from onnx.external_data_helper import set_external_data

    artifact = copied(tiny.half, tmp_path)
    model = graph_of(artifact)
    tensor = next(tensor for tensor in model.graph.initializer if "fc1.weight" in tensor.name)
    (artifact.path / "w.bin").write_bytes(numpy_helper.to_array(tensor).tobytes())
    set_external_data(tensor, "w.bin")
    tensor.ClearField("raw_data")
    with_graph(artifact, model)
    with pytest.raises(ArtifactError, match=r"'w\.bin', which its manifest does not list"):
        load(artifact.path)
