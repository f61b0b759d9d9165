"""OpenVINO: precisions that are had or refused, compiled models that are kept, threads that share a runner."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sait_deploy.artifacts.folder import MANIFEST_FILE, Artifact, open_artifact, write_manifest
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.errors import InvalidArgument, RuntimeUnavailable
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.runtime.compiled_files import COMPILED_FOLDER
from sait_deploy.runtime.openvino import shared_core
from sait_deploy.runtime.precision import RunPrecision
from tests.exported import TinyExport, copied, graph_of, signed, with_graph
from tests.runtime.cases import COUNT, GOOD, ONE_THREAD, PATCHES, SHAPE
from tests.tiny import random_batch

openvino = pytest.importorskip("openvino")
ABLE = set(shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
needs_bf16 = pytest.mark.skipif("BF16" not in ABLE, reason="this processor does not compute in bf16")
IMAGES = random_batch((COUNT, *SHAPE))


def in_precision(artifact: Artifact, precision: RunPrecision | None) -> Runner:
    return load(artifact, "openvino", RunOptions(threads=1, precision=precision))


def fresh(artifact: Artifact, folder: Path) -> Artifact:
    """Returns a copy that may be changed, without compiled models."""
    copy = copied(artifact, folder)
    shutil.rmtree(copy.path / COMPILED_FOLDER, ignore_errors=True)
    return copy


def kept_models(artifact: Artifact) -> list[Path]:
    return sorted((artifact.path / COMPILED_FOLDER).glob("*"))


def test_an_artifact_runs_in_its_own_precision_whatever_the_processor_prefers(tiny: TinyExport) -> None:
    runner = in_precision(tiny.half, None)
    assert runner.precision == "fp32"
    products = runner.environment["matrix products"]
    assert products.endswith("f32") and "," not in products
    np.testing.assert_allclose(runner.run(GOOD).logits, load(tiny.half).run(GOOD).logits, rtol=1e-4, atol=1e-5)


@needs_bf16
def test_bf16_is_what_products_run_in_where_it_is_asked_for(tiny: TinyExport) -> None:
    runner, exact = in_precision(tiny.half, RunPrecision.BF16), in_precision(tiny.half, None)
    products = runner.environment["matrix products"]
    assert (runner.precision, products.endswith("bf16"), "," in products) == ("bf16", True, False)
    found, wanted = runner.run(GOOD).logits, exact.run(GOOD).logits
    assert 0 < np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    assert runner.kind != exact.kind


@needs_bf16
def test_the_selection_is_that_of_its_importance_in_bf16_too(tiny_adaptive: Artifact) -> None:
    runner = in_precision(tiny_adaptive, RunPrecision.BF16)
    for mass in (0.05, 0.3, 0.6, 0.9, 0.999, 1.0):
        selection = runner.select(IMAGES, mass=mass, min_keep=1, max_keep=PATCHES)
        limits = np.tile(np.array([[1, PATCHES]], np.int32), (COUNT, 1))
        keep, counts = mass_token_select(selection.importance, np.full(COUNT, mass, np.float32), limits, 1)
        np.testing.assert_array_equal(selection.keep, keep)
        found = runner.run(IMAGES, mass=mass, min_keep=1, max_keep=PATCHES)
        np.testing.assert_array_equal(found.kept, counts - 1)


@pytest.mark.skipif("FP16" in ABLE, reason="this processor computes in fp16")
def test_a_precision_that_the_processor_lacks_is_refused_with_those_it_has(tiny: TinyExport) -> None:
    with pytest.raises(RuntimeUnavailable, match="CPU computes nothing in fp16") as caught:
        in_precision(tiny.half, RunPrecision.FP16)
    assert caught.value.exit_code == 7 and "fp32" in caught.value.hint and "fp16" not in caught.value.hint
    assert "\n" not in caught.value.message


def test_what_runs_in_another_precision_than_asked_for_is_refused(tiny: TinyExport, tmp_path: Path) -> None:
    """A graph that is not quantised does not run in int8, whatever its manifest says."""
    artifact = fresh(tiny.half, tmp_path)
    manifest = dataclasses.replace(artifact.manifest, dtype=Precision.INT8)
    with pytest.raises(RuntimeUnavailable, match="int8 was asked for, and OpenVINO computes in f32"):
        load(dataclasses.replace(artifact, manifest=manifest), "openvino", ONE_THREAD)


def test_precisions_that_no_such_artifact_has_are_refused(tiny: TinyExport) -> None:
    with pytest.raises(InvalidArgument, match=r"openvino cannot run .* which is fp32, in int8") as caught:
        in_precision(tiny.half, RunPrecision.INT8)
    assert caught.value.hint == "use fp32, bf16, fp16"


@pytest.mark.parametrize("device", ["gpu.7", "cuda", "nonsense", "AUTO"])
def test_devices_that_are_not_there_are_refused_with_those_that_are(tiny: TinyExport, device: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=f"OpenVINO has no device {device.upper()} here") as caught:
        load(tiny.half, "openvino", RunOptions(device=device))
    assert "CPU" in caught.value.hint


def test_a_device_is_refused_by_runtimes_that_have_no_choice(tiny: TinyExport) -> None:
    with pytest.raises(InvalidArgument, match="onnxruntime runs on one kind of device alone, not on 'cuda'") as caught:
        load(tiny.half, "onnxruntime", RunOptions(device="cuda"))
    assert caught.value.hint == "use openvino, torch"


def test_a_compiled_model_is_kept_and_answers_alike(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = fresh(tiny.half, tmp_path)
    first = in_precision(open_artifact(artifact.path), None)
    (kept,) = kept_models(artifact)
    assert first.environment["compiled model"] == "made and kept in compiled"
    again = in_precision(open_artifact(artifact.path), None)
    assert again.environment["compiled model"] == "kept from an earlier run"
    assert kept_models(artifact) == [kept]
    assert again.environment["matrix products"] == first.environment["matrix products"]
    np.testing.assert_array_equal(again.run(GOOD).logits, first.run(GOOD).logits)
    np.testing.assert_array_equal(again.select(GOOD).keep, first.select(GOOD).keep)


def test_another_graph_precision_or_number_of_threads_has_a_compiled_model_of_its_own(
    tiny: TinyExport, tmp_path: Path
) -> None:
    artifact = fresh(tiny.half, tmp_path)
    before = in_precision(artifact, None).run(GOOD).logits
    load(artifact, "openvino", RunOptions(threads=2))
    assert len(kept_models(artifact)) == 2
    model = graph_of(artifact)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("head.weight"))
    weight.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weight), weight.name))
    changed = with_graph(artifact, model)
    runner = in_precision(changed, None)
    assert runner.environment["compiled model"] == "made and kept in compiled"
    assert not np.allclose(runner.run(GOOD).logits, before, rtol=1e-2)
    np.testing.assert_allclose(runner.run(GOOD).logits, load(changed).run(GOOD).logits, rtol=1e-4, atol=1e-5)


def test_a_damaged_compiled_model_is_made_anew(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = fresh(tiny.half, tmp_path)
    expected = in_precision(artifact, None).run(GOOD).logits
    for damage in (lambda data: data[:-9] + bytes(9), lambda data: data[:1000], lambda _: b""):
        (kept,) = kept_models(artifact)
        kept.write_bytes(damage(kept.read_bytes()))
        runner = in_precision(artifact, None)
        assert runner.environment["compiled model"] == "made and kept in compiled"
        np.testing.assert_array_equal(runner.run(GOOD).logits, expected)
        assert in_precision(artifact, None).environment["compiled model"] == "kept from an earlier run"


def test_a_folder_that_cannot_be_written_runs_without(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = fresh(tiny.half, tmp_path)
    (artifact.path / COMPILED_FOLDER).write_text("in the way", encoding="utf-8")
    runner = in_precision(open_artifact(artifact.path), None)
    assert runner.environment["compiled model"].startswith("made and not kept: cannot write ")
    np.testing.assert_allclose(runner.run(GOOD).logits, load(artifact).run(GOOD).logits, rtol=1e-4, atol=1e-5)


def test_threads_share_a_runner(tiny_adaptive: Artifact) -> None:
    runner = load(tiny_adaptive, "openvino", RunOptions(threads=2))
    requests: list[tuple[int, float]] = [(1 + turn % COUNT, 0.3 + 0.2 * (turn % 3)) for turn in range(60)]

    def answer(request: tuple[int, float]) -> Any:
        return runner.run(IMAGES[: request[0]], mass=request[1])

    expected = {request: answer(request) for request in set(requests)}
    with ThreadPoolExecutor(8) as pool:
        for request, found in zip(requests, pool.map(answer, requests), strict=True):
            np.testing.assert_array_equal(found.kept, expected[request].kept)
            np.testing.assert_allclose(found.logits, expected[request].logits, rtol=1e-5, atol=1e-6)


def test_answers_do_not_change_when_the_next_batch_runs(tiny: TinyExport) -> None:
    runner = in_precision(tiny.half, None)
    first = runner.run(GOOD)
    before = first.logits.copy()
    runner.run(GOOD + 1)
    np.testing.assert_array_equal(first.logits, before)


def test_bound_batches_run_apart_from_others(tiny_adaptive: Artifact) -> None:
    runner = load(tiny_adaptive, "openvino", ONE_THREAD)
    before = runner.run(IMAGES).logits
    call = runner.bind(IMAGES[:2])
    assert call() is None and call() is None
    np.testing.assert_array_equal(runner.run(IMAGES).logits, before)


def test_weights_beside_the_graph_are_read(tiny: TinyExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = fresh(tiny.half, tmp_path)
    expected = load(artifact).run(GOOD).logits
    model = graph_of(artifact)
    name = "model.onnx.data"
    onnx.save(model, str(artifact.model_path), save_as_external_data=True, location=name, size_threshold=100)
    manifest = dataclasses.replace(artifact.manifest, files={**artifact.manifest.files, name: "0" * 64})
    (artifact.path / MANIFEST_FILE).unlink()
    write_manifest(artifact.path, manifest)
    monkeypatch.chdir(tmp_path)
    found = in_precision(open_artifact(signed(artifact).path), None).run(GOOD).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    linked = tmp_path / "cache" / "models--a--b" / "snapshots" / "1"
    blobs = tmp_path / "cache" / "models--a--b" / "blobs"
    linked.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(path for path in artifact.path.iterdir() if path.is_file()):
        file.rename(blobs / str(number))
        (linked / file.name).symlink_to(Path("..", "..", "blobs", str(number)))
    found = in_precision(open_artifact(linked), None).run(GOOD).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_graph_that_openvino_cannot_compile_is_one_line(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = fresh(tiny.half, tmp_path)
    model = graph_of(artifact)
    model.graph.node[5].op_type = "NoSuchOperator"
    with pytest.raises(RuntimeUnavailable, match=r"openvino cannot compile the model: .*NoSuchOperator") as caught:
        in_precision(with_graph(artifact, model), None)
    assert "\n" not in caught.value.message
    assert not kept_models(artifact)


def test_a_half_precision_artifact_runs_in_what_the_processor_has(tiny_fp16: TinyExport) -> None:
    expected = load(tiny_fp16.half).run(GOOD).logits
    found = in_precision(tiny_fp16.half, RunPrecision.FP32).run(GOOD).logits
    np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


def test_signals_reach_their_handlers_after_runners_ended(tiny: TinyExport) -> None:
    """OpenVINO moves the stack that handlers run on, and would leave one that is gone."""
    code = """
import faulthandler, gc, os, signal, sys
from sait_deploy.runtime import load
from sait_deploy.runtime.openvino import trial
faulthandler.enable()
first, second = (load(sys.argv[1], "openvino") for _ in range(2))
del first
gc.collect()
trial()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny.half.path)], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
