"""Artifacts of image towers: what they answer on every runtime, what they say of themselves, and who refuses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.manifest import Form, Outputs, Task, TensorInfo
from sait_deploy.artifacts.manifest_document import from_json, to_json
from sait_deploy.artifacts.points import mass_point
from sait_deploy.artifacts.tower_info import SelectStrategy, TowerChoice
from sait_deploy.batch.job import run_batch
from sait_deploy.batch.options import BatchOptions
from sait_deploy.bench.flips import answers_of
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.options import AccuracyOf, BenchOptions
from sait_deploy.bench.run import bench
from sait_deploy.bench.variants import Sweep
from sait_deploy.engine.build import build_engine
from sait_deploy.errors import ArtifactError, InvalidArgument, NotFinite, ParityError
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import EvaluateOptions
from sait_deploy.exporting.inspect import compare_with_torch, inspect
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.exporting.stage import export_model
from sait_deploy.exporting.tables import inspection_table
from sait_deploy.images.dataset import PHOTOGRAPHS
from sait_deploy.models.embedder import for_task
from sait_deploy.models.registry import LoadedModel
from sait_deploy.prediction import PredictOptions, predict
from sait_deploy.quantization.options import QuantizeOptions
from sait_deploy.quantization.stage import quantize
from sait_deploy.runtime import RunOptions, load
from sait_deploy.runtime.embeddings import means_of_images
from tests.shared import made_once
from tests.tiny import HALF, random_batch

ONE_THREAD = RunOptions(threads=1)
IMAGES = random_batch((5, 3, 64, 64))
LAST_BUT_ONE = TowerChoice(-2)


@pytest.fixture(scope="session")
def towers(random_model: LoadedModel) -> list[Artifact]:
    """All but the last block of a model with a class token, which is left out: dense, at density 0.5, adaptive."""
    options = ExportOptions(densities=(HALF,), points=(mass_point(0.6),), task=Task.TOKENS, tower=LAST_BUT_ONE)
    return made_once("towers", lambda folder: export_model(random_model, dataclasses.replace(options, output=folder)))


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch", "openvino"])
@pytest.mark.parametrize("form", Form)
def test_every_runtime_gives_the_tokens_that_torch_keeps(form: Form, runtime: str, towers: list[Artifact]) -> None:
    """The dense tower's tokens, chosen and run on by hand, are what torch's own modules give."""
    artifact = next(artifact for artifact in towers if artifact.manifest.form is form)
    expected = load(artifact, "torch", ONE_THREAD).run(IMAGES)
    found = load(artifact, runtime, ONE_THREAD).run(IMAGES)
    np.testing.assert_array_equal(found.cu_seqlens, expected.cu_seqlens)
    np.testing.assert_array_equal(found.positions, expected.positions)
    np.testing.assert_array_equal(found.kept, np.diff(found.cu_seqlens))
    np.testing.assert_allclose(found.tokens, expected.tokens, atol=2e-5)
    if form is not Form.DENSE:
        keep = load(artifact, runtime, ONE_THREAD).select(IMAGES)
        prefix = artifact.manifest.model.geometry.prefix_tokens
        np.testing.assert_array_equal(np.nonzero(keep.keep[:, prefix:])[1], found.positions)
        np.testing.assert_allclose(keep.logits, found.tokens, atol=2e-5)


def test_the_forms_agree_where_all_is_kept(towers: list[Artifact]) -> None:
    dense, _, adaptive = (load(artifact, options=ONE_THREAD) for artifact in towers)
    whole, same = dense.run(IMAGES), adaptive.run(IMAGES, mass=1.0)
    np.testing.assert_array_equal(same.cu_seqlens, whole.cu_seqlens)
    np.testing.assert_array_equal(same.positions, whole.positions)
    np.testing.assert_allclose(same.tokens, whole.tokens, atol=2e-5)


def test_the_class_token_stands_before_each_images_patches(random_model: LoadedModel, tmp_path: Path) -> None:
    tower = TowerChoice(-1, SelectStrategy.FULL)
    options = ExportOptions(points=(mass_point(0.6),), task=Task.TOKENS, tower=tower, output=tmp_path)
    _, adaptive = export_model(random_model, options)
    found = load(adaptive, options=ONE_THREAD).run(IMAGES)
    assert (found.positions[found.cu_seqlens[:-1]] == -1).all()
    assert (found.positions == -1).sum() == len(IMAGES)
    np.testing.assert_array_equal(found.kept, np.diff(found.cu_seqlens) - 1)
    assert "layer-1-full" in adaptive.manifest.name
    again = open_artifact(adaptive.path)
    assert again.manifest.model.tower == tower


def test_the_manifest_says_what_is_answered(towers: list[Artifact]) -> None:
    for artifact in towers:
        manifest = open_artifact(artifact.path).manifest
        assert (manifest.model.tower, manifest.model.task, manifest.model.classes) == (LAST_BUT_ONE, Task.TOKENS, 0)
        width = manifest.model.geometry.width
        assert manifest.outputs == (
            TensorInfo("tokens", "float32", ("tokens", width)),
            TensorInfo("cu_seqlens", "int32", ("batch+1",)),
            TensorInfo("positions", "int32", ("tokens",)),
        )
        assert from_json(to_json(manifest)) == manifest
        assert manifest.parity.top1_agreement is None
        cells = {row.cells[0].text: row.cells[1].text for row in inspection_table(inspect(artifact)).rows}
        assert "layer -2, patches alone" in cells["answer"]
        assert "cu_seqlens int32 [batch+1]" in cells["outputs"]
        golden = artifact.golden()
        answer = load(artifact, options=ONE_THREAD).run(golden.images)
        assert golden.counts.tolist() == (answer.kept + manifest.model.geometry.prefix_tokens).tolist()
        np.testing.assert_allclose(golden.logits, answer.tokens, atol=1e-5)
        assert golden.further["positions"].tolist() == answer.positions.tolist()
        assert golden.further["cu_seqlens"].tolist() == answer.cu_seqlens.tolist()
    assert compare_with_torch(towers[-1]).largest_difference < 1e-4


def test_layers_and_strategies_are_artifacts_of_their_own(random_model: LoadedModel) -> None:
    def identity(*tower: Any) -> str:
        choice = TowerChoice(*tower)
        options = ExportOptions(densities=(HALF,), task=Task.TOKENS, tower=choice)
        return plan_exports(for_task(random_model, Task.TOKENS, tower=choice), options)[1].id

    depth = random_model.info.geometry.depth
    assert identity(-2) == identity(depth - 1)
    assert len({identity(-2), identity(-1), identity(), identity(-2, SelectStrategy.FULL)}) == 4


@pytest.mark.parametrize("further", [{"outputs": Outputs.LOGITS_AND_FEATURES}, {"feature_blocks": (0,)}])
def test_a_tower_returns_one_layer(random_model: LoadedModel, further: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="one layer") as caught:
        export_model(random_model, ExportOptions(task=Task.TOKENS, output=tmp_path / "out", **further))
    assert "--features" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_no_numbers_is_named(towers: list[Artifact]) -> None:
    images = IMAGES.copy()
    images[3] = np.nan
    for artifact in towers:
        with pytest.raises(NotFinite, match="image 3 of the batch: its tokens"):
            load(artifact, options=ONE_THREAD).run(images)


def test_parity_notices_tokens_of_other_patches(towers: list[Artifact], random_model: LoadedModel) -> None:
    from sait_deploy.exporting.parity import ParityImages, check_parity
    from sait_deploy.runtime.torch import rebuild

    artifact = towers[1]
    runner = load(artifact, options=ONE_THREAD)
    reference = rebuild(artifact.manifest)
    reference.tower = TowerChoice(-2, SelectStrategy.FULL)
    with pytest.raises(ParityError, match="other patches"):
        check_parity(runner, reference, ParityImages(IMAGES, "noise"))


REFUSALS: dict[str, Callable[[Artifact, Path], Any]] = {
    "predict": lambda artifact, _: predict(artifact, PHOTOGRAPHS, PredictOptions()),
    "evaluate": lambda artifact, _: evaluate(artifact, options=EvaluateOptions()),
    "quantize": lambda artifact, _: quantize(artifact, QuantizeOptions()),
    "batch": lambda artifact, folder: run_batch(BatchOptions(str(folder), str(folder / "out"), artifact.path)),
}


@pytest.mark.parametrize("command", REFUSALS)
def test_commands_that_need_an_answer_for_each_image_refuse(
    command: str, towers: list[Artifact], tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match=f"image tower.*{command} needs one answer") as caught:
        REFUSALS[command](towers[-1], tmp_path)
    assert "sait_deploy.load" in (caught.value.hint or "")


def test_a_model_that_is_evaluated_as_a_tower_is_refused(random_model: LoadedModel) -> None:
    with pytest.raises(InvalidArgument, match="evaluate needs one answer"):
        evaluate(random_model, options=EvaluateOptions(task=Task.TOKENS))


def test_no_engine_is_built(towers: list[Artifact]) -> None:
    with pytest.raises(InvalidArgument, match="no engines are built of an image tower"):
        build_engine(towers[1])


def test_a_manifest_of_other_outputs_is_refused(towers: list[Artifact]) -> None:
    manifest = towers[0].manifest
    for wrong in (manifest.outputs[:2], manifest.outputs[::-1]):
        with pytest.raises(ArtifactError, match="outputs"):
            from_json(to_json(dataclasses.replace(manifest, outputs=wrong)))


def test_bench_times_a_tower_and_counts_flips(towers: list[Artifact]) -> None:
    sweep = Sweep(kept=(KeptDistribution(8, 2),))
    options = BenchOptions(batches=(2,), threads=1, accuracy=AccuracyOf.NONE, duration=0.2, sweep=sweep)
    report = bench(towers, options, lambda *_: None)
    assert len(report.rows) == 3 and not report.refusals


def test_answers_of_a_tower_are_the_images_nearest_by_their_mean_token() -> None:
    tokens = np.array([[1, 0], [1, 0.2], [0, 1], [0.9, 0.1], [0.8, 0.3], [0, 3]], dtype=np.float32)
    means = means_of_images(tokens, np.array([2, 1, 2, 1]))
    np.testing.assert_allclose(means, [[1, 0.1], [0, 1], [0.85, 0.2], [0, 3]])
    assert answers_of(means, 0).tolist() == [2, 3, 0, 1]
    assert torch.from_numpy(means).dtype is torch.float32
