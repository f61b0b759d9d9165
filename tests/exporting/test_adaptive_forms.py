"""The forms an adaptive graph may take: inlined, without class token and head, with its weights in a second file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.exporters import finish as finish_module
from sait_deploy.exporting.stage import export
from sait_deploy.plugins.spec import DOMAIN
from sait_deploy.runtime import load
from tests.exported import POINTS, graph_of
from tests.exporting.exports import ONE_THREAD, check_golden, names, smallest, to
from tests.tiny import random_batch

IMAGES = random_batch((4, 3, 32, 32))


@pytest.mark.parametrize("form", ["inlined", "pooled"])
def test_golden_files_are_all_that_checking_needs(form: str, request: pytest.FixtureRequest) -> None:
    for artifact in request.getfixturevalue(form):
        check_golden(artifact)


def test_an_inlined_graph_has_standard_operators_alone(inlined: list[Artifact]) -> None:
    for artifact in inlined:
        model = graph_of(artifact)
        assert artifact.manifest.inlined
        assert artifact.path.name == f"VisionTransformer-inline-{artifact.manifest.form}"
        assert not model.functions
        assert {node.domain for node in model.graph.node} == {""}
        assert DOMAIN not in {entry.domain for entry in model.opset_import}


def test_an_inlined_graph_answers_as_its_dense_one_at_mass_1(inlined: list[Artifact]) -> None:
    dense, adaptive = (load(artifact, options=ONE_THREAD) for artifact in inlined)
    found = adaptive.run(IMAGES, mass=1)
    assert found.kept.tolist() == [16] * len(IMAGES)
    np.testing.assert_allclose(found.logits, dense.run(IMAGES).logits, rtol=1e-4, atol=1e-5)
    fewer = adaptive.run(IMAGES, mass=[0.2, 0.4, 0.6, 0.8], max_keep=[2, 16, 16, 9])
    selection = adaptive.select(IMAGES, mass=[0.2, 0.4, 0.6, 0.8], max_keep=[2, 16, 16, 9])
    np.testing.assert_array_equal(selection.keep.sum(axis=1), fewer.kept + 1)
    np.testing.assert_allclose(selection.logits, fewer.logits, rtol=1e-4, atol=1e-5)


def test_a_model_without_class_token_and_head(pooled: list[Artifact]) -> None:
    dense, adaptive = (load(artifact, options=ONE_THREAD) for artifact in pooled)
    assert pooled[1].manifest.outputs[0].name == "embeddings"
    assert pooled[1].manifest.outputs[0].shape == ("batch", 32)
    assert pooled[1].manifest.parity.top1_agreement is None
    whole = adaptive.run(IMAGES, mass=1)
    np.testing.assert_allclose(whole.logits, dense.run(IMAGES).logits, rtol=1e-4, atol=1e-5)
    assert whole.kept.tolist() == [16] * len(IMAGES)
    assert adaptive.run(IMAGES, mass=0).kept.tolist() == [1] * len(IMAGES)
    each = adaptive.run(IMAGES, mass=0, min_keep=[1, 2, 3, 16])
    assert each.kept.tolist() == [1, 2, 3, 16]
    for place, kept in enumerate(each.kept):
        alone = adaptive.run(IMAGES[place : place + 1], mass=0, min_keep=kept)
        np.testing.assert_allclose(each.logits[place], alone.logits[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidArgument, match="headless"):
        adaptive.predict(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("place", range(4))
def test_pixels_that_are_no_numbers_are_named_without_class_token_too(pooled: list[Artifact], place: int) -> None:
    runner, images = load(pooled[1], options=ONE_THREAD), IMAGES.copy()
    images[place, 1, 3, 3] = np.nan
    for mass in (0.0, 0.5, 1.0):
        with pytest.raises(ModelError, match=f"image {place} of the batch: its logits are not finite"):
            runner.run(images, mass=mass)
        with pytest.raises(ModelError, match=f"image {place} of the batch: its importance scores are not finite"):
            runner.select(images, mass=mass)


def test_weights_outside_the_graph_are_hashed_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish_module, "LARGEST_PROTOBUF", 10_000)
    dense, adaptive = export(smallest(), to(tmp_path, points=POINTS))
    assert names(adaptive.path) == {"model.onnx", "model.onnx.data", "golden.npz", "manifest.json"}
    runner = load(open_artifact(adaptive.path), options=ONE_THREAD)
    expected = load(dense, options=ONE_THREAD).run(IMAGES).logits
    np.testing.assert_allclose(runner.run(IMAGES, mass=1).logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(runner.select(IMAGES, mass=1).logits, expected, rtol=1e-4, atol=1e-5)
