"""Graphs of fixed batch size: static in the file, refused at another, and filled where images are many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
from PIL import Image

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.artifacts.manifest_document import as_dict
from sait_deploy.bench.options import BenchOptions
from sait_deploy.bench.run import bench
from sait_deploy.engine.options import BatchRange, batch_of
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporting.inspect import compare_with_torch
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.dataset import shipped_dataset
from sait_deploy.models.registry import WeightsRequest, load_model
from sait_deploy.prediction import answers_to
from sait_deploy.quantization.options import FEWEST_IMAGES, QuantizeOptions
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import load
from sait_deploy.runtime.batches import run_all
from tests.exported import CLASSES, IMAGE_SIZE, POINTS
from tests.shared import made_once, once_in_a_run
from tests.tiny import HALF, randomised, save_weights

BATCH = 4
FORMS = ("dense", "density", "adaptive")


@once_in_a_run
def exported(batch: int | None) -> list[Artifact]:
    def make(folder: Path) -> list[Artifact]:
        vit = randomised(timm.create_model("test_vit", img_size=IMAGE_SIZE, num_classes=CLASSES), seed=3)
        weights = save_weights(vit, folder / "weights.safetensors")
        model = load_model("test_vit", WeightsRequest(WeightsSource.FILE, weights), IMAGE_SIZE)
        options = ExportOptions((HALF,), POINTS, output=folder / "artifacts", batch=batch)
        return export_model(model, options)

    return made_once(f"fixed batch {batch}", make)


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((count, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)


@pytest.mark.parametrize("form", range(3))
def test_the_batch_is_static_in_the_file(form: int) -> None:
    artifact = exported(BATCH)[form]
    manifest = artifact.manifest
    assert manifest.batch == BATCH and as_dict(manifest)["batch"] == BATCH
    assert f"-batch{BATCH}-" in artifact.path.name
    assert {tensor.shape[0] for tensor in (*manifest.inputs, *manifest.outputs)} == {BATCH}
    graph = onnx.load(str(artifact.model_path))
    onnx.checker.check_model(graph, full_check=True)
    for tensor in (*graph.graph.input, *graph.graph.output):
        assert tensor.type.tensor_type.shape.dim[0].dim_value == BATCH
    symbols = {d.dim_param for v in graph.graph.value_info for d in v.type.tensor_type.shape.dim if d.dim_param}
    assert len(symbols) == (2 if FORMS[form] == "adaptive" else 0), "rows kept and the longest image alone"
    assert manifest.parity.batches == (BATCH,)
    assert artifact.golden().images.shape[0] == BATCH


def test_a_graph_for_any_batch_says_nothing_of_it() -> None:
    dynamic, fixed = exported(None), exported(BATCH)
    assert all("batch" not in as_dict(artifact.manifest) for artifact in dynamic)
    assert not {artifact.manifest.id for artifact in dynamic} & {artifact.manifest.id for artifact in fixed}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("form", range(3))
def test_answers_are_those_of_the_graph_for_any_batch(form: int, runtime: str) -> None:
    fixed, dynamic = load(exported(BATCH)[form], runtime), load(exported(None)[form], runtime)
    wanted = dynamic.run(images(6))
    found = run_all(fixed, images(6))
    np.testing.assert_allclose(found.logits, wanted.logits, atol=2e-4)
    np.testing.assert_array_equal(found.kept, wanted.kept)
    for other in (1, 3, 5):
        with pytest.raises(InvalidArgument, match=f"takes batches of {BATCH} images, not {other}") as caught:
            fixed.run(images(other))
        assert "--batch" in caught.value.hint


def test_predict_fills_the_last_batch() -> None:
    paths: Sequence[Path] = [path for path in shipped_dataset("test_vit").images if isinstance(path, Path)]
    fixed, dynamic = (list(answers_to(load(exported(batch)[2]), paths)) for batch in (BATCH, None))
    assert [one.path for one in fixed] == list(paths)
    assert [one.prediction.labels for one in fixed] == [one.prediction.labels for one in dynamic]
    assert [one.prediction.kept for one in fixed] == [one.prediction.kept for one in dynamic]


def test_quantize_and_check_again(tmp_path: Path) -> None:
    for number in range(FEWEST_IMAGES + 1):
        pixels = np.random.default_rng(number).integers(0, 256, (100, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    made = quantize(exported(BATCH)[:2], QuantizeOptions(images=tmp_path, min_agreement=0.0))
    for artifact in made:
        assert artifact.manifest.batch == BATCH
        assert load(artifact).run(images(BATCH)).logits.shape == (BATCH, CLASSES)
    assert compare_with_torch(exported(BATCH)[1], None, None).batches == (BATCH,)


def test_bench_measures_the_graphs_batch_and_refuses_others() -> None:
    found = bench(exported(BATCH)[:2], BenchOptions(duration=0.01, warmup=1))
    assert {row.batch for row in found.rows} == {BATCH} and not found.refusals
    other = bench(exported(BATCH)[:2], BenchOptions(batches=(2,), duration=0.01, warmup=1))
    assert not other.rows
    assert all(f"batches of {BATCH} images, not 2" in refusal.reason for refusal in other.refusals)


def test_engines_have_the_graphs_batch() -> None:
    own = BatchRange(BATCH, BATCH, BATCH)
    assert batch_of(BATCH, BatchRange()) == batch_of(BATCH, own) == own
    assert batch_of(None, BatchRange(2, 2, 2)) == BatchRange(2, 2, 2)
    with pytest.raises(InvalidArgument, match="--batch 1:2:3 is not the graph's"):
        batch_of(BATCH, BatchRange(1, 2, 3))


@pytest.mark.parametrize("batch", [0, -1])
def test_batches_that_cannot_be(batch: int) -> None:
    with pytest.raises(InvalidArgument, match=f"a batch of {batch} images cannot be"):
        ExportOptions(batch=batch)
