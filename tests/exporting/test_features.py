"""The tokens of the last block as an output: kept ones processed, dropped ones as they were when dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import FEATURES
from sait_deploy.errors import ParityError
from sait_deploy.exporting.parity import ParityImages, check_parity
from sait_deploy.models.registry import LoadedModel
from sait_deploy.runtime import load
from tests.exported import copied, graph_of, reference, with_graph
from tests.exporting.exports import ONE_THREAD, check_golden
from tests.tiny import random_batch

COUNT, TOKENS, WIDTH = 5, 17, 64
IMAGES = random_batch((COUNT, 3, 64, 64))
EACH: dict[str, Any] = {"mass": [0.0, 0.3, 0.5, 0.7, 1.0], "max_keep": [16, 16, 4, 16, 16]}


def test_names_say_so_and_manifests_list_the_output(featured: list[Artifact]) -> None:
    forms = ("dense", "density0.5", "adaptive")
    assert [artifact.path.name for artifact in featured] == [f"test_vit-64px-features-{form}" for form in forms]
    for artifact in featured:
        counted = artifact.manifest.pruning is not None
        assert artifact.manifest.output_names == ("logits", FEATURES, *(["counts"] if counted else []))
        assert artifact.manifest.outputs[1].shape == ("batch", TOKENS, WIDTH)
        graph = graph_of(artifact).graph
        assert tuple(value.name for value in graph.output) == artifact.manifest.output_names
        (dims,) = [v.type.tensor_type.shape.dim for v in graph.output if v.name == FEATURES]
        assert tuple(dim.dim_param or dim.dim_value for dim in dims) == artifact.manifest.outputs[1].shape


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_every_form_returns_all_tokens(featured: list[Artifact], runtime: str) -> None:
    for artifact, kept in zip(featured, ([16] * COUNT, [8] * COUNT, None), strict=True):
        for batch in (1, COUNT):
            output = load(artifact, runtime, ONE_THREAD).run(IMAGES[:batch])
            assert output.features is not None and output.features.dtype == np.float32
            assert output.features.shape == (batch, TOKENS, WIDTH)
            assert kept is None or output.kept.tolist() == kept[:batch]


def test_dense_features_are_the_models_own(featured: list[Artifact], random_model: LoadedModel) -> None:
    with torch.no_grad():
        expected = random_model.vit.forward_features(torch.from_numpy(IMAGES)).numpy()
    features = load(featured[0], options=ONE_THREAD).run(IMAGES).features
    assert features is not None
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_features_at_mass_1_are_the_dense_ones(featured: list[Artifact], runtime: str) -> None:
    dense, _, adaptive = (load(artifact, runtime, ONE_THREAD) for artifact in featured)
    expected, found = dense.run(IMAGES), adaptive.run(IMAGES, mass=1)
    assert expected.features is not None and found.features is not None
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", [1, 2])
def test_dropped_tokens_are_as_they_were_when_dropped(
    featured: list[Artifact], random_model: LoadedModel, form: int
) -> None:
    """Which is after the attention of the block pruned in; kept ones went on to other values."""
    vit, runner = random_model.vit, load(featured[form], options=ONE_THREAD)
    choice = EACH if form == 2 else {}
    features, keep = runner.run(IMAGES, **choice).features, runner.select(IMAGES, **choice).keep.astype(bool)
    assert features is not None
    with torch.no_grad():
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(torch.from_numpy(IMAGES))))
        x = vit.blocks[0](x)
        block = vit.blocks[1]
        x = vit.norm(x + block.ls1(block.attn(block.norm1(x)))).numpy()
    assert 0 < (~keep).sum() < keep.size
    np.testing.assert_allclose(features[~keep], x[~keep], rtol=1e-3, atol=1e-4)
    assert (np.abs(features[keep] - x[keep]).max(axis=1) > 1e-2).all()


def test_runtimes_give_the_same_features_at_points_of_their_own(featured: list[Artifact]) -> None:
    onnx_runner, torch_runner = (load(featured[2], runtime, ONE_THREAD) for runtime in ("onnxruntime", "torch"))
    keeps = [runner.select(IMAGES, **EACH).keep for runner in (onnx_runner, torch_runner)]
    same = (keeps[0] == keeps[1]).all(axis=1)
    assert same.mean() >= 0.6
    first, second = (runner.run(IMAGES, **EACH).features for runner in (onnx_runner, torch_runner))
    assert first is not None and second is not None
    np.testing.assert_allclose(first[same], second[same], rtol=1e-3, atol=1e-4)


def test_the_golden_file_holds_them_too(featured: list[Artifact]) -> None:
    for artifact in featured:
        check_golden(artifact)
        features = artifact.golden().token_features
        assert features is not None and features.shape == (1, TOKENS, WIDTH)


def test_without_them_there_are_none(small: list[Artifact]) -> None:
    for artifact in small:
        assert FEATURES not in artifact.manifest.output_names
        assert artifact.golden().token_features is None
        assert load(artifact, options=ONE_THREAD).run(artifact.golden().images).features is None


@pytest.mark.parametrize("form", [0, 1, 2])
def test_parity_compares_them_too(
    featured: list[Artifact], random_model: LoadedModel, tmp_path: Path, form: int
) -> None:
    artifact = copied(featured[form], tmp_path)
    model = graph_of(artifact)
    for node in model.graph.node:
        node.output[:] = ["right" if name == FEATURES else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    model.graph.node.append(onnx.helper.make_node("Sub", ["right", "half"], [FEATURES]))
    images, wanted = ParityImages(IMAGES, "random numbers"), reference(random_model, artifact)
    check_parity(load(artifact, options=ONE_THREAD), wanted, images)
    with pytest.raises(ParityError, match="the outputs of image 0 differ from the reference's by"):
        check_parity(load(with_graph(artifact, model), options=ONE_THREAD), wanted, images)
