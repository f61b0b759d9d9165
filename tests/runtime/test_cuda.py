"""ONNX Runtime CUDA: what it is given to run anywhere, and, where there is a GPU that it can use, what it answers."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from sait_deploy.artifacts.digests import sha256_of
from sait_deploy.artifacts.folder import MODEL_FILE, Artifact
from sait_deploy.artifacts.manifest import Form, Precision
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.errors import RuntimeUnavailable
from sait_deploy.exporters.lower_cuda import PACKED, UNIFORM, fused_attention
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime import Runner, load
from sait_deploy.runtime.graph_io import with_selection
from sait_deploy.runtime.onnxruntime import CPU, open_session
from sait_deploy.runtime.onnxruntime_cuda import OnnxRuntimeCudaRunner, lowered
from tests.exported import TinyExport, copied, graph_of
from tests.needed import no_gpu
from tests.runtime.cases import CHOICES, COUNT, ONE_THREAD, SHAPE
from tests.tiny import random_batch

CUDA = "onnxruntime-cuda"
IMAGES = random_batch((COUNT, *SHAPE), seed=5)
# Largest difference from the CPU's logits, relative to the largest of them or 1; TF32 is off.
TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 3e-2}

FORMS = ("dense", "density", "adaptive")
PRECISIONS = ("fp32", "fp16")


@pytest.fixture(scope="module", params=[f"{form}-{precision}" for form in FORMS for precision in PRECISIONS])
def artifact(
    request: pytest.FixtureRequest,
    tiny: TinyExport,
    tiny_fp16: TinyExport,
    tiny_adaptive: Artifact,
    tiny_adaptive_fp16: Artifact,
) -> Artifact:
    """The small model in every form and precision."""
    form, precision = request.param.split("-")
    exported, adaptive = (tiny, tiny_adaptive) if precision == "fp32" else (tiny_fp16, tiny_adaptive_fp16)
    return {"dense": exported.dense, "density": exported.half, "adaptive": adaptive}[form]


@functools.cache
def why_no_gpu() -> str | None:
    """Returns why ONNX Runtime cannot run on a GPU here, found out without any of our graphs."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDAExecutionProvider"
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:
        return f"the GPU cannot be used: {error}"
    return None if session.get_providers()[0] == "CUDAExecutionProvider" else "the GPU cannot be used"


@pytest.fixture(scope="module")
def gpu(artifact: Artifact) -> Runner:
    """The artifact on a GPU, where there is one."""
    reason = why_no_gpu()
    if reason is not None:
        no_gpu(reason)
    return load(artifact, CUDA)


def choices(artifact: Artifact) -> list[dict[str, Any]]:
    return CHOICES if artifact.manifest.form is Form.ADAPTIVE else [{}]


def test_the_processor_never_stands_in_for_a_gpu(artifact: Artifact) -> None:
    if why_no_gpu() is None:
        assert load(artifact, CUDA).environment["provider"] == "CUDAExecutionProvider"
        return
    with pytest.raises(RuntimeUnavailable) as caught:
        load(artifact, CUDA)
    assert "CUDAExecutionProvider" in caught.value.message
    assert caught.value.hint


def test_attention_is_handed_to_the_runtimes_own(artifact: Artifact) -> None:
    before = sha256_of(artifact.model_path)
    fused = fused_attention(lowered(artifact))
    depth, pruning = artifact.manifest.model.geometry.depth, artifact.manifest.pruning
    if pruning is None:
        assert fused == {UNIFORM: depth}
    elif artifact.manifest.form is Form.DENSITY:
        assert fused == {UNIFORM: depth - 1}
    else:
        assert fused == {PACKED: depth - 1 - pruning.prune_at, UNIFORM: pruning.prune_at}
    assert sha256_of(artifact.model_path) == before


def test_the_selections_tensors_are_outputs_of_what_a_gpu_runs(tiny_adaptive: Artifact) -> None:
    """Of packed attention alone a CPU has no kernel: with the queries in its place the graph runs there."""
    pruning = tiny_adaptive.manifest.pruning
    assert pruning is not None
    model = with_selection(lowered(tiny_adaptive), pruning)
    for node in model.graph.node:
        if node.op_type == PACKED:
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
    folder = str(tiny_adaptive.path)
    session = open_session(model.SerializeToString(), CPU, 1, folder)
    expected = load(tiny_adaptive, options=ONE_THREAD).select(IMAGES)
    point = resolve(tiny_adaptive.manifest, COUNT, PointChoice())
    assert point is not None
    feeds = {"images": IMAGES, "mass": point.mass, "keep_limits": point.keep_limits}
    importance, keep = session.run(["importance", "keep"], feeds)
    np.testing.assert_allclose(importance, expected.importance, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(keep, expected.keep)


class OnProcessor(OnnxRuntimeCudaRunner):
    """What a GPU is given, on a processor, which has a kernel of every fused attention but the packed one."""

    provider, device = CPU, "cpu"


@pytest.mark.parametrize("form", ["dense", "half"])
def test_what_a_gpu_is_given_answers_on_a_processor_too(tiny: TinyExport, form: str) -> None:
    artifact = getattr(tiny, form)
    runner, expected = OnProcessor(artifact, ONE_THREAD), load(artifact, options=ONE_THREAD).run(IMAGES)
    np.testing.assert_allclose(runner.run(IMAGES).logits, expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(runner.run(IMAGES).kept, expected.kept)
    runner.bind(IMAGES)()
    blocks = artifact.manifest.model.geometry.depth - (form == "half")
    assert (runner.environment["runtime"], runner.environment["fused attention"]) == (CUDA, f"{blocks} {UNIFORM}")


def test_weights_beside_the_graph_are_found(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = copied(tiny.dense, tmp_path)
    weights = f"{MODEL_FILE}.data"
    onnx.save_model(graph_of(artifact), str(artifact.model_path), save_as_external_data=True, location=weights)
    model = lowered(artifact)
    assert len(model.SerializeToString()) < (artifact.path / weights).stat().st_size / 2
    session = open_session(model.SerializeToString(), CPU, 1, str(artifact.path))
    (logits,) = session.run(["logits"], {"images": IMAGES})
    np.testing.assert_allclose(logits, load(tiny.dense, options=ONE_THREAD).run(IMAGES).logits, rtol=1e-4, atol=1e-5)


def agrees(artifact: Artifact, first: Runner, second: Runner, batch: int, choice: dict[str, Any]) -> None:
    """Compares the logits that the first runner gives a batch with those of the second for all images.

    Images that do not keep the same tokens, as their importance differs in its last bits, are left out.
    """
    same, images = np.ones(batch, dtype=bool), IMAGES[:batch]
    found, expected = first.run(images, **choice), second.run(IMAGES, **choice)
    if artifact.manifest.pruning is not None:
        same = (first.select(images, **choice).keep == second.select(IMAGES, **choice).keep[:batch]).all(axis=1)
        np.testing.assert_array_equal(found.kept[same], expected.kept[:batch][same])
    assert same.mean() >= 0.5
    wanted = expected.logits[:batch][same]
    scale = np.maximum(1, np.abs(wanted).max(axis=1, keepdims=True))
    assert (np.abs(found.logits[same] - wanted) / scale).max() < TOLERANCE[artifact.manifest.dtype]


def test_a_gpu_gives_the_processors_answers(gpu: Runner, artifact: Artifact) -> None:
    cpu = load(artifact)
    for choice in choices(artifact):
        agrees(artifact, gpu, cpu, COUNT, choice)


def test_a_gpus_answer_does_not_depend_on_the_batch(gpu: Runner, artifact: Artifact) -> None:
    for batch in (3, 5):
        agrees(artifact, gpu, gpu, batch, {})


def test_a_gpu_selects_bit_for_bit_as_defined(gpu: Runner, artifact: Artifact) -> None:
    if artifact.manifest.form is not Form.ADAPTIVE:
        pytest.skip("it takes no point")
    for choice in choices(artifact):
        selection, point = gpu.select(IMAGES, **choice), resolve(artifact.manifest, COUNT, PointChoice(**choice))
        assert point is not None
        keep, counts = mass_token_select(selection.importance, point.mass, point.keep_limits, 1)
        np.testing.assert_array_equal(selection.keep, keep)
        np.testing.assert_array_equal(gpu.run(IMAGES, **choice).kept, counts - 1)


def test_a_gpu_runs_from_bound_buffers_and_names_its_attention(gpu: Runner, artifact: Artifact) -> None:
    fused = fused_attention(lowered(artifact))
    assert gpu.environment["fused attention"] == ", ".join(f"{count} {name}" for name, count in fused.items())
    for choice in choices(artifact):
        compute = gpu.bind(IMAGES, PointChoice(**choice))
        compute()
        compute()
