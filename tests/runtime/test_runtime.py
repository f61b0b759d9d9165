"""Runners: one way to ask and to answer whatever runs the model, and one clear error for what cannot be run."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from sait_deploy.artifact import Artifact
from sait_deploy.errors import (
    ArtifactError,
    ImageError,
    InvalidArgument,
    MissingDependency,
    ModelError,
    RuntimeUnavailable,
)
from sait_deploy.manifest import WeightsSource
from sait_deploy.runtime import Output, Runner, RunOptions, RuntimeName, load
from sait_deploy.runtime.base import predictions
from tests.exported import CLASSES, IMAGE_SIZE, TinyExport, copied, graph_of, with_graph
from tests.tiny import family, random_batch, save_weights

RUNTIMES = (RuntimeName.ONNXRUNTIME, RuntimeName.TORCH)
ONE_THREAD = RunOptions(threads=1)
SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)
KEPT, PATCHES = 18, 36


@pytest.fixture(scope="module", params=RUNTIMES)
def runner(request: pytest.FixtureRequest, tiny: TinyExport) -> Runner:
    """The pruned artifact on one runtime after the other."""
    return load(tiny.half, request.param, ONE_THREAD)


@pytest.fixture(scope="module", params=RUNTIMES)
def dense_runner(request: pytest.FixtureRequest, tiny: TinyExport) -> Runner:
    """The dense artifact on one runtime after the other."""
    return load(tiny.dense, request.param, ONE_THREAD)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_batch_is_answered(runner: Runner, batch: int) -> None:
    output = runner.run(random_batch((batch, *SHAPE)))
    assert output.logits.shape == (batch, CLASSES) and output.logits.dtype == np.float32
    assert output.kept.tolist() == [KEPT] * batch and output.kept.dtype == np.int32


def test_dense_keeps_every_patch_token(dense_runner: Runner) -> None:
    output = dense_runner.run(random_batch((2, *SHAPE)))
    assert output.logits.shape == (2, CLASSES)
    assert output.kept.tolist() == [PATCHES] * 2


def test_selection_is_the_answer_and_how_it_came_about(runner: Runner) -> None:
    images = random_batch((3, *SHAPE))
    selection = runner.select(images)
    np.testing.assert_allclose(selection.logits, runner.run(images).logits, rtol=1e-4, atol=1e-5)
    assert selection.importance.shape == (3, PATCHES) and selection.importance.dtype == np.float32
    np.testing.assert_allclose(selection.importance.sum(axis=1), 1, atol=1e-5)
    assert selection.keep.shape == (3, 1 + PATCHES) and selection.keep.dtype == np.int32
    assert set(np.unique(selection.keep)) == {0, 1}
    assert selection.keep[:, 0].all()
    assert (selection.keep.sum(axis=1) == 1 + KEPT).all()
    least_kept = np.where(selection.keep[:, 1:] == 1, selection.importance, np.inf).min(axis=1)
    most_dropped = np.where(selection.keep[:, 1:] == 0, selection.importance, -np.inf).max(axis=1)
    assert (least_kept >= most_dropped - 2**-20).all()


def test_a_dense_artifact_selects_nothing(dense_runner: Runner) -> None:
    with pytest.raises(InvalidArgument, match="is dense"):
        dense_runner.select(random_batch((1, *SHAPE)))


def test_runs_repeat_and_leave_the_images_alone(runner: Runner) -> None:
    images = random_batch((2, *SHAPE))
    before = images.copy()
    first, second = runner.run(images), runner.run(images)
    np.testing.assert_array_equal(first.logits, second.logits)
    np.testing.assert_array_equal(images, before)
    first.logits[:] = 0
    np.testing.assert_array_equal(runner.run(images).logits, second.logits)


GOOD = random_batch((2, *SHAPE))
WRONG: list[Any] = [
    GOOD[:0],
    GOOD[0],
    GOOD[None],
    GOOD.astype(np.float64),
    GOOD.astype(np.float16),
    GOOD.astype(">f4"),
    (GOOD * 20).astype(np.uint8),
    GOOD.transpose(0, 2, 3, 1),
    GOOD[:, :1],
    GOOD[..., :-1],
    GOOD[:, :, :-16, :-16],
    np.concatenate([GOOD, GOOD], axis=1),
    GOOD.tolist(),
    torch.from_numpy(GOOD),
    np.float32(0),
    None,
    "image.png",
]


@pytest.mark.parametrize("images", WRONG, ids=lambda images: f"{type(images).__name__}{list(np.shape(images))}")
@pytest.mark.parametrize("call", ["run", "select", "bind"])
def test_what_is_no_batch_is_refused(runner: Runner, call: str, images: Any) -> None:
    with pytest.raises(InvalidArgument, match=rf"not float32 \[B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}\]") as caught:
        getattr(runner, call)(images)
    assert "preprocess" in caught.value.hint


def read_only(images: NDArray[np.float32]) -> NDArray[np.float32]:
    images.flags.writeable = False
    return images


LAYOUTS: list[Callable[[NDArray[np.float32]], NDArray[np.float32]]] = [
    lambda images: images[..., ::-1],
    lambda images: images[::2],
    lambda images: images.transpose(0, 1, 3, 2),
    np.asfortranarray,
    read_only,
    lambda images: np.broadcast_to(images[:1], (3, *SHAPE)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_may_lie_in_memory_in_any_way(
    runner: Runner, layout: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    images = layout(random_batch((4, *SHAPE)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, selected = runner.run(images).logits, runner.select(images).logits
        runner.bind(images)()
    expected = runner.run(np.array(images, order="C")).logits
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(selected, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_named_by_image(runner: Runner, dense_runner: Runner, value: float) -> None:
    images = random_batch((3, *SHAPE))
    images[2, 0, 0, 0] = value
    with pytest.raises(ModelError, match="image 2 of the batch: its logits"):
        runner.run(images)
    with pytest.raises(ModelError, match="image 2 of the batch: its logits"):
        dense_runner.run(images)
    with pytest.raises(ModelError, match="image 2 of the batch: its importance"):
        runner.select(images)


def test_bound_runs_take_a_batch_once_and_run_it_often(runner: Runner, dense_runner: Runner) -> None:
    for each in (runner, dense_runner):
        compute = each.bind(random_batch((2, *SHAPE)))
        assert [compute() for _ in range(3)] == [None] * 3
        assert each.run(GOOD).logits.shape == (2, CLASSES)


def test_bound_runs_compute_the_batch(tiny: TinyExport, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bound call leaves in its outputs is the batch's answer."""
    runner = load(tiny.half, options=ONE_THREAD)
    bound: list[Any] = []
    session = runner._session  # type: ignore[attr-defined]
    make = session.io_binding

    def keep() -> Any:
        bound.append(make())
        return bound[-1]

    monkeypatch.setattr(session, "io_binding", keep)
    runner.bind(GOOD)()
    logits, counts = bound[0].copy_outputs_to_cpu()
    expected = runner.run(GOOD)
    np.testing.assert_allclose(logits, expected.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(counts - 1, expected.kept)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("threads", [1, 2, None])
def test_the_number_of_threads_changes_no_answer(tiny: TinyExport, runtime: RuntimeName, threads: int | None) -> None:
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
    assert all(name in caught.value.hint for name in RuntimeName)


def test_an_unknown_runtime_is_refused_before_the_artifact_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        load(tmp_path / "none", "tensorflow")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_artifacts_are_opened_by_path_too(tiny: TinyExport, runtime: RuntimeName) -> None:
    for path in (tiny.half.path, str(tiny.half.path)):
        runner = load(path, runtime.value, ONE_THREAD)
        assert runner.runtime is runtime
        assert runner.artifact == tiny.half


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_artifact_is_not_loaded(tiny: TinyExport, tmp_path: Path, runtime: RuntimeName) -> None:
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
    model.graph.node[5].op_type = "NoSuchOperator"
    with pytest.raises(RuntimeUnavailable, match="cannot load the model") as caught:
        load(with_graph(artifact, model).path)
    assert "\n" not in caught.value.message


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


def test_cuda_is_never_replaced_by_the_processor(tiny: TinyExport) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has it")
    with pytest.raises(RuntimeUnavailable, match="CUDAExecutionProvider") as caught:
        load(tiny.half, "onnxruntime-cuda")
    assert "sait-deploy[gpu]" in caught.value.hint


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "nonsense", ""])
def test_a_torch_device_that_is_not_there(tiny: TinyExport, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(RuntimeUnavailable, match="torch cannot use device") as caught:
        load(tiny.half, "torch", RunOptions(threads=1, device=device))
    assert repr(device) in caught.value.message
    assert "\n" not in caught.value.message


# The torch runtime's weights


def test_torch_refuses_other_weights(tiny: TinyExport, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny.weights)
    tensors["head.bias"][0] += 1e-3
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="are not those of") as caught:
        load(tiny.half, "torch", RunOptions(threads=1, weights=tmp_path / "other.safetensors"))
    assert tiny.half.manifest.weights.sha256[:12] in caught.value.message


def test_torch_takes_the_same_weights_from_another_place(tiny: TinyExport, tmp_path: Path) -> None:
    moved = Path(shutil.copy(tiny.weights, tmp_path / "moved.safetensors"))
    gone = dataclasses.replace(tiny.half.manifest.weights, origin=str(tmp_path / "gone.safetensors"))
    artifact = dataclasses.replace(tiny.half, manifest=dataclasses.replace(tiny.half.manifest, weights=gone))
    with pytest.raises(ModelError, match=r"gone\.safetensors does not exist"):
        load(artifact, "torch", ONE_THREAD)
    found = load(artifact, "torch", RunOptions(threads=1, weights=moved)).run(GOOD)
    np.testing.assert_array_equal(found.logits, load(tiny.half, "torch", ONE_THREAD).run(GOOD).logits)


def test_torch_refuses_weights_of_another_architecture(tiny: TinyExport, tmp_path: Path) -> None:
    path = save_weights(family("vit"), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="do not fit"):
        load(tiny.half, "torch", RunOptions(threads=1, weights=path))


def test_torch_cannot_rebuild_a_model_from_memory(tiny: TinyExport) -> None:
    weights = dataclasses.replace(tiny.half.manifest.weights, source=WeightsSource.MEMORY, origin=None)
    artifact = Artifact(tiny.half.path, dataclasses.replace(tiny.half.manifest, weights=weights))
    with pytest.raises(ModelError, match="in memory"):
        load(artifact, "torch", ONE_THREAD)


def test_torch_leaves_no_gradient(tiny: TinyExport) -> None:
    runner = load(tiny.half, "torch", ONE_THREAD)
    runner.run(GOOD)
    runner.bind(GOOD)()
    model = runner._model  # type: ignore[attr-defined]
    assert all(parameter.grad is None for parameter in model.parameters())


# Images in, classes out


def test_images_are_prepared_as_the_manifest_says(runner: Runner) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    batch = runner.preprocess([pixels, pixels])
    assert batch.shape == (2, *SHAPE) and batch.dtype == np.float32
    assert runner.preprocess(pixels).shape == (1, *SHAPE)
    np.testing.assert_array_equal(runner.preprocess(pixels)[0], batch[1])


def test_predictions_are_the_likeliest_classes(runner: Runner) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), dtype=np.uint8)
    found = runner.predict(list(pixels), top=3)
    logits = runner.run(runner.preprocess(list(pixels))).logits.astype(np.float64)
    for prediction, row in zip(found, logits, strict=True):
        probabilities = np.exp(row) / np.exp(row).sum()
        order = np.argsort(-row)[:3]
        assert prediction.labels == tuple(str(i) for i in order)
        np.testing.assert_allclose(prediction.probabilities, probabilities[order], rtol=1e-4)
        assert prediction.kept == KEPT
    everything = runner.predict(pixels[0], top=100)[0]
    assert len(everything.labels) == CLASSES
    assert sum(everything.probabilities) == pytest.approx(1, abs=1e-5)


def with_model(artifact: Artifact, **changes: Any) -> Artifact:
    model = dataclasses.replace(artifact.manifest.model, **changes)
    return Artifact(artifact.path, dataclasses.replace(artifact.manifest, model=model))


def test_predictions_bear_the_labels_of_the_manifest(tiny: TinyExport) -> None:
    labels = ("ape", "bee", "cat", "dog", "eel")
    logits = np.array([[0, 1, 5, 2, 3]], dtype=np.float32)
    output = Output(logits, np.array([7], dtype=np.int32))
    (found,) = predictions(with_model(tiny.half, labels=labels), output, 3)
    assert (found.labels, found.kept) == (("cat", "eel", "dog"), 7)


def test_huge_logits_have_probabilities_too(tiny: TinyExport) -> None:
    logits = np.array([[1e30, -1e30, 0, 0, 1e4]], dtype=np.float32)
    (found,) = predictions(tiny.half, Output(logits, np.array([7], dtype=np.int32)), 5)
    assert found.probabilities[0] == 1.0
    assert np.isfinite(found.probabilities).all()


def test_a_headless_model_predicts_nothing(tiny: TinyExport) -> None:
    with pytest.raises(InvalidArgument, match="headless"):
        predictions(with_model(tiny.half, classes=0), Output(GOOD[:, 0, 0], np.ones(2, np.int32)), 5)


def test_an_image_that_is_none_is_refused(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    with pytest.raises(ImageError, match=r"text\.png"):
        runner.predict([tmp_path / "text.png"])


# What has to be installed

_BLOCKED = """
import sys
blocked = set(sys.argv[3].split(","))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import numpy as np
import sait_deploy
from sait_deploy.errors import SaitError
try:
    runner = sait_deploy.load(sys.argv[1], sys.argv[2])
    print(runner.run(np.zeros((2, 3, 96, 96), dtype=np.float32)).kept.tolist())
    print(runner.predict(np.zeros((9, 9, 3), dtype=np.uint8))[0].kept)
except SaitError as error:
    print(type(error).__name__, error.exit_code, error.message, error.hint, sep="|")
print(sorted(blocked & set(sys.modules)))
"""


def without(artifact: Artifact, runtime: str, packages: str) -> list[str]:
    command = [sys.executable, "-c", _BLOCKED, str(artifact.path), runtime, packages]
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_onnxruntime_runs_without_torch(tiny: TinyExport) -> None:
    packages = "torch,timm,torchvision,safetensors,onnxscript,onnx_ir,click,rich"
    assert without(tiny.half, "onnxruntime", packages) == ["[18, 18]", "18", "[]"]


@pytest.mark.parametrize(
    ("runtime", "package", "extra"), [("onnxruntime", "onnxruntime", "cpu"), ("torch", "torch", "export")]
)
def test_a_missing_package_is_named_with_its_extra(tiny: TinyExport, runtime: str, package: str, extra: str) -> None:
    error, _ = without(tiny.half, runtime, package)
    kind, code, message, hint = error.split("|")
    assert (kind, code) == (MissingDependency.__name__, "3")
    assert f"needs {package}, which is not installed" in message
    assert f"sait-deploy[{extra}]" in hint


# A file of weights outside the graph


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
