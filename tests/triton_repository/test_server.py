"""Models in Python in a real Triton: asked through tritonclient, they answer as the runner does."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.exporters.cut import cut
from sait_deploy.runtime import Runner, RunOptions, load
from sait_deploy.triton_repository.options import Backend, RepositoryOptions
from sait_deploy.triton_repository.stage import write_repository
from tests.exported import IMAGE_SIZE, graph_of
from tests.tiny import random_batch
from tests.triton_repository.engines import with_engine
from tests.triton_repository.triton import serving, triton_python

client: Any = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
protocol: Any = pytest.importorskip("tritonclient.grpc.model_config_pb2")
text_format: Any = pytest.importorskip("google.protobuf.text_format")

PART = '''
import os
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    """A part of the cut graph on ONNX Runtime, in place of an engine."""

    def initialize(self, args):
        file = os.path.join(args["model_repository"], args["model_version"], "part.onnx")
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        names = list(request.requested_output_names())
        given = {one.name: triton.get_input_tensor_by_name(request, one.name).as_numpy()
                 for one in self.session.get_inputs()}
        found = self.session.run(names, given)
        return triton.InferenceResponse([triton.Tensor(name, array) for name, array in zip(names, found)])
'''


def cut_repository(artifact: Artifact, folder: Path, scratch: Path) -> None:
    """Writes the engine's form, and puts the cut graphs on ONNX Runtime where the engines are."""
    source = with_engine(artifact, scratch)
    write_repository(RepositoryOptions(source.path, folder, Backend.TENSORRT, name="cut"))
    parts = cut(graph_of(artifact))
    for name, graph in (("cut-stem", parts.stem), ("cut-trunk", parts.trunk)):
        config = text_format.Parse((folder / name / "config.pbtxt").read_text(), protocol.ModelConfig())
        config.platform, config.backend = "", "python"
        config.ClearField("instance_group")
        there = {tensor.name for tensor in graph.graph.output}
        kept = [tensor for tensor in config.output if tensor.name in there]
        config.ClearField("output")
        config.output.extend(kept)
        text = text_format.MessageToString(config).replace("TYPE_FP16", "TYPE_FP32")
        (folder / name / "config.pbtxt").write_text(text)
        (folder / name / "1" / "model.plan").unlink()
        (folder / name / "1" / "model.py").write_text(PART)
        onnx.save(graph, str(folder / name / "1" / "part.onnx"))


@dataclasses.dataclass(frozen=True)
class Asked:
    """A client of one model."""

    server: Any
    model: str

    def infer(self, images: NDArray[np.float32], **point: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        inputs = []
        for name, array in {"images": images, **point}.items():
            kind = "FP32" if array.dtype == np.float32 else "INT32"
            inputs.append(client.InferInput(name, array.shape, kind))
            inputs[-1].set_data_from_numpy(array)
        answer = self.server.infer(self.model, inputs)
        return answer.as_numpy("logits"), answer.as_numpy("kept")[:, 0]


@pytest.mark.slow
def test_models_in_python_answer_as_the_runner_does(tiny_adaptive: Artifact, wheel: Path, tmp_path: Path) -> None:
    """One server for all, as it takes long to start."""
    repository = tmp_path / "repository"
    options = RepositoryOptions(tiny_adaptive.path, repository, Backend.PYTHON, "wide", "packed", token_budget=60)
    write_repository(options)
    cut_repository(tiny_adaptive, repository, tmp_path)
    runner = load(tiny_adaptive, "onnxruntime", RunOptions(threads=1))
    with serving(repository, triton_python(wheel)) as address:
        server = client.InferenceServerClient(address)
        for model, point in (("packed", "wide"), ("cut", "mass0.6")):
            asked = Asked(server, model)
            _check_points(asked, runner, point)
            _check_requests_at_once(asked, runner, point)
            _check_refusals(asked)


def _check_points(asked: Asked, runner: Runner, point: str) -> None:
    images = random_batch((5, 3, IMAGE_SIZE, IMAGE_SIZE))
    own = {
        "mass": np.array([[0.2], [0.5], [0.9], [1.0], [0.7]], np.float32),
        "keep_limits": np.array([[1, 36], [3, 5], [2, 36], [1, 36], [30, 36]], np.int32),
    }
    limits = own["keep_limits"]
    wanted = runner.run(images, mass=own["mass"][:, 0], min_keep=limits[:, 0], max_keep=limits[:, 1])
    for found, right in ((asked.infer(images), runner.run(images, point=point)), (asked.infer(images, **own), wanted)):
        np.testing.assert_allclose(found[0], right.logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found[1], right.kept)


def _check_requests_at_once(asked: Asked, runner: Runner, point: str) -> None:
    batches = [random_batch((1 + seed % 4, 3, IMAGE_SIZE, IMAGE_SIZE), seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(asked.infer, batches))
    for (logits, kept), batch in zip(found, batches, strict=True):
        right = runner.run(batch, point=point)
        np.testing.assert_allclose(logits, right.logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(kept, right.kept)


def _check_refusals(asked: Asked) -> None:
    images = random_batch((2, 3, IMAGE_SIZE, IMAGE_SIZE))
    with pytest.raises(client.InferenceServerException, match="mass"):
        asked.infer(images, mass=np.array([[0.5], [-1]], np.float32))
    with pytest.raises(client.InferenceServerException, match="keep"):
        asked.infer(images, keep_limits=np.array([[1, 99], [1, 2]], np.int32))
    images[1] = np.nan
    with pytest.raises(client.InferenceServerException, match="not finite"):
        asked.infer(images)
