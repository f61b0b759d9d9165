"""A repository's configurations, parsed with Triton's own protobuf classes, and the files that they name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.engine.profiles import PartName
from sait_deploy.triton_repository.options import Backend, RepositoryOptions
from sait_deploy.triton_repository.stage import write_repository
from tests.exported import IMAGE_SIZE, TinyExport
from tests.triton_repository.engines import with_engine

pytest.importorskip("google.protobuf")
protocol: Any = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")


def parsed(folder: Path) -> Any:
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), protocol.ModelConfig())


def written(artifact: Artifact, folder: Path, backend: Backend, **given: Any) -> dict[str, Any]:
    """Writes a repository and returns its configurations by model; data of every warm-up are as long as they say."""
    folders = write_repository(RepositoryOptions(artifact.path, folder, backend, **given))
    found = {place.name: parsed(place) for place in folders}
    assert {place.name for place in folder.iterdir()} == set(found)
    for place in folders:
        config = found[place.name]
        assert config.name == place.name
        for request in config.model_warmup:
            for tensor in request.inputs.values():
                if tensor.zero_data:
                    continue
                size = math.prod(tensor.dims) * 4
                assert (place / "warmup" / tensor.input_data_file).stat().st_size == size
    return found


def tensors(fields: Any) -> dict[str, tuple[int, list[int]]]:
    return {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in fields}


def parameters(config: Any) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


def test_the_file_on_onnx_runtime(tiny_adaptive: Artifact, tmp_path: Path) -> None:
    (config,) = written(tiny_adaptive, tmp_path / "r", Backend.ONNXRUNTIME, point="fast", name="tiny").values()
    assert (config.backend, config.max_batch_size, config.HasField("dynamic_batching")) == ("onnxruntime", 32, True)
    assert tensors(config.input) == {
        "images": (protocol.TYPE_FP32, [3, IMAGE_SIZE, IMAGE_SIZE]),
        "mass": (protocol.TYPE_FP32, [1]),
        "keep_limits": (protocol.TYPE_INT32, [2]),
    }
    assert tensors(config.output) == {"logits": (protocol.TYPE_FP32, [5]), "counts": (protocol.TYPE_INT32, [1])}
    single = [tensor for tensor in (*config.input, *config.output) if tensor.HasField("reshape")]
    assert [tensor.name for tensor in single] == ["mass", "counts"]
    assert all(list(tensor.reshape.shape) == [] for tensor in single)
    said = parameters(config)
    assert said["artifact"] == tiny_adaptive.manifest.id
    assert (said["point"], said["mass"], said["min_keep"], said["max_keep"]) == ("fast", "0.3", "2", "8")
    folder = tmp_path / "r" / "tiny"
    assert (folder / "1" / "model.onnx").read_bytes() == tiny_adaptive.model_path.read_bytes()
    golden = np.frombuffer((folder / "warmup" / "images").read_bytes(), np.float32)
    np.testing.assert_array_equal(golden, tiny_adaptive.golden().images.ravel())
    assert np.frombuffer((folder / "warmup" / "keep_limits").read_bytes(), np.int32).tolist() == [2, 8]


@pytest.mark.parametrize("backend", [Backend.ONNXRUNTIME, Backend.PYTHON])
def test_a_fixed_point_has_images_alone(tiny: TinyExport, tmp_path: Path, backend: Backend) -> None:
    (config,) = written(tiny.half, tmp_path / "r", backend, max_batch=4).values()
    assert list(tensors(config.input)) == ["images"] and config.max_batch_size == 4
    assert "point" not in parameters(config)


def test_embeddings_have_no_labels(embedders: list[Artifact], projecting: Artifact, tmp_path: Path) -> None:
    cases = [(Backend.ONNXRUNTIME, embedders[-1], 64), (Backend.PYTHON, embedders[-1], 64)]
    for number, (backend, artifact, width) in enumerate([*cases, (Backend.PYTHON, projecting, 10)]):
        (config,) = written(artifact, tmp_path / str(number), backend).values()
        assert tensors(config.output)["embeddings"] == (protocol.TYPE_FP32, [width])
        assert not config.output[0].label_filename
        assert not (tmp_path / str(number) / config.name / "labels.txt").exists()


def test_classes_with_names_have_labels(demo_workspace: Path, tmp_path: Path) -> None:
    artifact = open_artifact(demo_workspace / "sait_demo_digits-density0.6")
    (config,) = written(artifact, tmp_path / "r", Backend.ONNXRUNTIME).values()
    assert config.output[0].label_filename == "labels.txt"
    labels = (tmp_path / "r" / config.name / "labels.txt").read_text().splitlines()
    assert tuple(labels) == artifact.manifest.model.labels


def test_the_python_form_holds_the_artifact(tiny_adaptive: Artifact, tmp_path: Path) -> None:
    (config,) = written(tiny_adaptive, tmp_path / "r", Backend.PYTHON, token_budget=99).values()
    assert (config.backend, config.input[1].optional, config.input[2].optional) == ("python", True, True)
    assert tensors(config.output)["kept"] == (protocol.TYPE_INT32, [1])
    assert parameters(config)["token_budget"] == "99"
    held = open_artifact(tmp_path / "r" / config.name / "1" / "artifact")
    assert held.manifest == tiny_adaptive.manifest


def test_an_engine_is_stem_and_trunk_behind_a_model(tiny_adaptive: Artifact, tmp_path: Path) -> None:
    artifact = with_engine(tiny_adaptive, tmp_path)
    found = written(artifact, tmp_path / "r", Backend.TENSORRT, name="cut")
    stem, trunk, model = found["cut-stem"], found["cut-trunk"], found["cut"]
    for part in (stem, trunk):
        assert (part.platform, part.max_batch_size) == ("tensorrt_plan", 0)
        assert (tmp_path / "r" / part.name / "1" / "model.plan").is_file()
    assert tensors(stem.input)["images"] == (protocol.TYPE_FP32, [-1, 3, IMAGE_SIZE, IMAGE_SIZE])
    assert tensors(trunk.input)["kept"] == (protocol.TYPE_INT32, [-1])
    from sait_deploy.engine.folder import engine_folders, open_engine

    engine = open_engine(artifact, engine_folders(artifact)[0]).manifest
    profiles = engine.part(PartName.TRUNK).profiles
    assert len(profiles) > 1
    assert list(trunk.instance_group[0].profile) == [str(number) for number in range(len(profiles))]
    assert (model.backend, model.max_batch_size) == ("python", engine.batch.largest)
    said = parameters(model)
    assert (said["stem"], said["trunk"], said["answer"]) == ("cut-stem", "cut-trunk", "logits")
    assert not model.model_warmup, "it cannot ask its parts before the server is ready"
    (warm,) = trunk.model_warmup
    assert list(warm.inputs["tokens"].dims) == [37, 64] and warm.inputs["tokens"].zero_data
    assert list(warm.inputs["kept"].dims) == list(warm.inputs["lanes"].dims)
    assert set(said["crossing"].split()) == {"tokens", "cu_seqlens", "guard"}
    assert "TritonPythonModel" in (tmp_path / "r" / "cut" / "1" / "model.py").read_text()


def test_a_whole_engine_is_one_model(tiny: TinyExport, tmp_path: Path) -> None:
    (config,) = written(with_engine(tiny.dense, tmp_path), tmp_path / "r", Backend.TENSORRT).values()
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 32)
    assert tensors(config.input) == {"images": (protocol.TYPE_FP32, [3, IMAGE_SIZE, IMAGE_SIZE])}
    assert list(config.instance_group[0].profile) == ["0"]
