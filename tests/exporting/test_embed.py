"""Artifacts that embed: what they say of themselves, what they answer on every runtime, in int8 and as engines."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator

from sait_deploy.artifacts.folder import MANIFEST_FILE, Artifact, open_artifact
from sait_deploy.artifacts.manifest import EmbeddingInfo, Form, Head, Precision, Task, WeightsSource
from sait_deploy.artifacts.points import mass_point
from sait_deploy.errors import InvalidArgument, ParityError
from sait_deploy.exporters.cut import cut
from sait_deploy.exporters.names import AttentionForm, EnginePrecision
from sait_deploy.exporting.inspect import inspect
from sait_deploy.exporting.parity import ParityImages, check_parity
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.exporting.stage import export_model
from sait_deploy.exporting.tables import export_notes, inspection_table
from sait_deploy.models.embedder import for_task
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import RunOptions, load
from tests.exported import IMAGE_SIZE, TinyExport, copied, graph_of, reference, with_graph
from tests.exporters.parts import lowered
from tests.quantization.conftest import ANY_AGREEMENT
from tests.tiny import HALF, random_batch

ONE_THREAD = RunOptions(threads=1)
IMAGES = random_batch((5, 3, IMAGE_SIZE, IMAGE_SIZE))


def test_the_manifest_says_what_is_embedded(embedders: list[Artifact], tiny: TinyExport) -> None:
    for artifact in embedders:
        manifest = open_artifact(artifact.path).manifest
        assert manifest.model.embedding == EmbeddingInfo(64, Head.CLASSIFIER)
        assert (manifest.model.classes, manifest.model.labels, manifest.model.task) == (0, None, Task.EMBED)
        first = manifest.outputs[0]
        assert (first.name, first.dtype, first.shape) == ("embeddings", "float32", ("batch", 64))
        assert "-embed-" in manifest.name
        assert manifest.parity.top1_agreement is None
        assert "5 classes is left out" in manifest.weights.notes[-1]
        rows = inspection_table(inspect(artifact)).rows
        cells = {row.cells[0].text: row.cells[1].text for row in rows}
        assert "an embedding of 64 numbers, of unit length" in cells["answer"]
    written = json.loads((tiny.dense.path / MANIFEST_FILE).read_text(encoding="utf-8"))
    assert "embedding" not in written["model"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch", "openvino"])
@pytest.mark.parametrize("form", Form)
def test_every_runtime_gives_the_embeddings_of_torch(
    form: Form, runtime: str, embedders: list[Artifact], tiny: TinyExport
) -> None:
    artifact = next(artifact for artifact in embedders if artifact.manifest.form is form)
    model = for_task(tiny.model, Task.EMBED)
    found = load(artifact, runtime, ONE_THREAD).run(IMAGES)
    bare = dataclasses.replace(artifact.manifest, model=dataclasses.replace(artifact.manifest.model, embedding=None))
    features = reference(model, Artifact(artifact.path, bare))
    expected = load(artifact, "torch", ONE_THREAD).run(IMAGES)
    np.testing.assert_array_equal(found.kept, expected.kept)
    np.testing.assert_allclose(found.logits, expected.logits, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found.logits, axis=1), 1, rtol=1e-5)
    if form is Form.DENSE:
        import torch

        with torch.inference_mode():
            plain = F.normalize(features.trace(torch.from_numpy(IMAGES)).logits).numpy()
        np.testing.assert_allclose(found.logits, plain, atol=2e-5)


def test_an_embedding_may_be_narrower_than_a_token(projecting: Artifact) -> None:
    model = projecting.manifest.model
    assert model.embedding == EmbeddingInfo(10, Head.PROJECTION) and model.geometry.width != 10
    assert projecting.manifest.outputs[0].shape == ("batch", 10)
    assert load(projecting, "onnxruntime", ONE_THREAD).run(projecting.golden().images).logits.shape == (1, 10)


def test_labels_of_the_shipped_digits_are_not_held_against_an_embedding(projecting: Artifact) -> None:
    assert projecting.manifest.accuracy.top1_percent is None
    assert not export_notes([projecting.manifest], None)


def test_half_precision_keeps_the_length(tiny: TinyExport, tmp_path: Path) -> None:
    options = ExportOptions(densities=(HALF,), task=Task.EMBED, output=tmp_path, precision=Precision.FP16)
    for artifact in export_model(tiny.model, options):
        assert "ReduceL2" in artifact.manifest.fp32_operators
        lengths = np.linalg.norm(load(artifact, options=ONE_THREAD).run(IMAGES).logits, axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)


def test_int8_keeps_the_length_and_is_compared_by_cosine(embedders: list[Artifact], tmp_path: Path) -> None:
    made = quantize([copied(artifact, tmp_path) for artifact in embedders], ANY_AGREEMENT)
    for artifact in made:
        manifest = artifact.manifest
        assert manifest.quantization is not None
        assert all(point.same_top1 is None and point.cosine > 0.9 for point in manifest.quantization.compared)
        lengths = np.linalg.norm(load(artifact, options=ONE_THREAD).run(IMAGES).logits, axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_a_small_error_of_an_embedding_is_found(embedders: list[Artifact], tiny: TinyExport, tmp_path: Path) -> None:
    """Numbers of an embedding are small: what would pass for a logit is much for them."""
    dense = copied(embedders[0], tmp_path)
    graph = onnx.load(str(dense.model_path))
    maker = next(node for node in graph.graph.node if "embeddings" in node.output)
    maker.output[0] = "right"
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.full(64, 8e-5, np.float32), "wrong"))
    graph.graph.node.append(onnx.helper.make_node("Add", ["right", "wrong"], ["embeddings"]))
    changed = with_graph(dense, graph)
    images = ParityImages(IMAGES, "noise")
    with pytest.raises(ParityError, match="differ from the reference's"):
        check_parity(load(changed, options=ONE_THREAD), reference(for_task(tiny.model, Task.EMBED), dense), images)


def test_no_export_of_another_task_or_head_is_taken_for_it(tiny: TinyExport) -> None:
    def ids(model: LoadedModel, **changes: Any) -> set[str]:
        options = ExportOptions(densities=(HALF,), points=(mass_point(0.6),), **changes)
        return {plan.id for plan in plan_exports(for_task(model, options.task, options.head), options)}

    embed, project = ids(tiny.model, task=Task.EMBED), ids(tiny.model, task=Task.EMBED, head=Head.PROJECTION)
    classify = ids(tiny.model)
    assert not (embed & project or embed & classify or project & classify)
    assert classify == ids(tiny.model, task=Task.CLASSIFY)
    assert {tiny.dense.manifest.id, tiny.half.manifest.id} <= classify


def test_labels_are_for_classes(tiny: TinyExport, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    options = ExportOptions(task=Task.EMBED, labels=tmp_path / "names.txt", output=tmp_path / "artifacts")
    with pytest.raises(InvalidArgument, match=r"names\.txt"):
        export_model(tiny.model, options)


def test_the_original_is_embedded_again_from_its_file(embedders: list[Artifact], tiny: TinyExport) -> None:
    from sait_deploy.models.original import original_model

    again = original_model(embedders[1].manifest, tiny.weights)
    assert again.info.embedding == embedders[1].manifest.model.embedding
    assert load_model("test_vit", WeightsRequest(WeightsSource.FILE, tiny.weights), IMAGE_SIZE).info.classes == 5


@pytest.mark.parametrize("precision", EnginePrecision)
def test_an_engine_divides_by_the_length_in_full_precision(
    precision: EnginePrecision, embedders: list[Artifact]
) -> None:
    """Squares of features may be too large for float16: the reduction stays float32, and so does the answer."""
    dense, _, adaptive = embedders
    trunk = cut(graph_of(adaptive)).trunk
    for graph in (graph_of(dense), trunk):
        made = lowered(graph, precision, AttentionForm.DECOMPOSED)
        kinds = {value.name: value.type.tensor_type.elem_type for value in made.graph.value_info}
        (length,) = [node for node in made.graph.node if node.op_type == "ReduceL2"]
        assert kinds[length.input[0]] == onnx.TensorProto.FLOAT
        (output,) = [value for value in made.graph.output if value.name == "embeddings"]
        assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    found = ReferenceEvaluator(lowered(graph_of(dense), precision, AttentionForm.DECOMPOSED)).run(
        ["embeddings"], {"images": IMAGES[:2]}
    )[0]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found, load(dense, options=ONE_THREAD).run(IMAGES[:2]).logits, atol=0.05)
