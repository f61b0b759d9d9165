"""Adaptive graphs answer as torch does, whatever the batch, the point, the neighbours and what runs them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from sait_deploy.artifacts.manifest import Outputs, Precision
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.models.traced import Traced
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from sait_deploy.runtime.openvino import shared_core
from sait_deploy.tokens import Score
from tests.exporters.graphs import OPSET, SELECTION, Opened, before_last, feeds, finished, vit_named, with_outputs
from tests.tiny import FAMILIES, images_for, relative_difference

FORMS = list(OperatorForm)
FEW = ("small/3", "siglip/2", "average-and-largest/2")
BATCHES = (1, 2, 3, 5, 16)
SMALL = "small/3"
BOTH = Outputs.LOGITS_AND_FEATURES


def patches(name: str) -> int:
    return int(vit_named(name).patch_embed.num_patches)


def batch_of(name: str, count: int, seed: int = 0) -> NDArray[np.float32]:
    images: NDArray[np.float32] = images_for(vit_named(name), count, seed).numpy()
    return images


def point(mass: Any, least: Any, most: Any, batch: int) -> BatchPoint:
    """One value for the batch, or one per image."""
    limits = [np.broadcast_to(np.asarray(limit, dtype=np.int32), batch) for limit in (least, most)]
    return BatchPoint(np.broadcast_to(np.float32(mass), batch).copy(), np.stack(limits, axis=1))


def points(batch: int, most: int) -> dict[str, BatchPoint]:
    """Points of every kind for a batch of models of ``most`` patch tokens."""
    counts = [(7 * image) % most + 1 for image in range(batch)]
    return {
        "everything": point(1.0, 1, most, batch),
        "one mass": point(0.5, 1, most, batch),
        "a mass each": point(np.linspace(0.9, 0.2, batch), 1, most, batch),
        "a mass within limits": point(0.6, 3, 6, batch),
        "as many each": point(0.0, 5, 5, batch),
        "a number each": point(1.0, counts, counts, batch),
        "one token": point(0.0, 1, 1, batch),
    }


@functools.cache
def opened(
    name: str,
    operators: OperatorForm = OperatorForm.FUNCTION,
    precision: Precision = Precision.FP32,
    pruning: AdaptivePruning | None = None,
) -> Opened:
    return Opened(finished(name, pruning or before_last(name), OPSET, operators, precision), SELECTION)


@functools.cache
def torch_model(name: str, pruning: AdaptivePruning | None) -> PrunableViT:
    return PrunableViT(vit_named(name), pruning or before_last(name))


@torch.no_grad()
def in_torch(
    name: str,
    images: NDArray[np.float32],
    at: BatchPoint,
    keep: NDArray[np.int32] | None = None,
    pruning: AdaptivePruning | None = None,
) -> Traced:
    forced = None if keep is None else torch.from_numpy(keep)
    mass, limits = torch.from_numpy(at.mass), torch.from_numpy(at.keep_limits)
    return torch_model(name, pruning).trace(torch.from_numpy(images), mass, limits, keep=forced)


def difference(found: NDArray[Any], wanted: NDArray[Any] | torch.Tensor) -> float:
    return relative_difference(torch.as_tensor(found), torch.as_tensor(wanted))


def assert_agrees(
    found: dict[str, NDArray[Any]],
    name: str,
    images: NDArray[np.float32],
    at: BatchPoint,
    tolerance: float,
    pruning: AdaptivePruning | None = None,
) -> Traced:
    """Holds a graph's answer against the reference selection and torch forced to it; returns torch's own answer."""
    prefix = vit_named(name).num_prefix_tokens
    keep, counts = mass_token_select(found["importance"], at.mass, at.keep_limits, prefix)
    np.testing.assert_array_equal(found["keep"], keep)
    np.testing.assert_array_equal(found["counts"], counts)
    assert found["logits"].dtype == np.float32
    assert difference(found["logits"], in_torch(name, images, at, found["keep"], pruning).logits) < tolerance
    free = in_torch(name, images, at, pruning=pruning)
    assert free.importance is not None
    np.testing.assert_allclose(found["importance"], free.importance.numpy(), rtol=0, atol=tolerance)
    return free


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{name}/2" for name in FAMILIES])
def test_every_family_gives_what_torch_gives(name: str) -> None:
    images, most = batch_of(name, 5, seed=7), patches(name)
    mixed = point([0.3, 0.6, 1.0, 0.0, 1.0], [1, 1, 1, 1, 4], [most, most, most, most, 4], 5)
    for operators in FORMS:
        model = finished(name, before_last(name), operators=operators)
        onnx.checker.check_model(model, full_check=True)
        found = opened(name, operators)(images, mixed)
        free = assert_agrees(found, name, images, mixed, 1e-4)
        assert free.counts is not None
        assert found["counts"].tolist() == free.counts.tolist()
        assert len(set(found["counts"].tolist())) >= 4
        with torch.no_grad():
            dense = vit_named(name)(torch.from_numpy(images))
        assert difference(found["logits"][2], dense[2][None]) < 1e-4


@pytest.mark.parametrize("operators", FORMS)
@pytest.mark.parametrize("name", FEW)
def test_any_batch_at_any_point_gives_what_torch_gives(name: str, operators: OperatorForm) -> None:
    session = opened(name, operators)
    for batch in BATCHES:
        images = batch_of(name, batch, seed=batch)
        for title, at in points(batch, patches(name)).items():
            found = session(images, at)
            free = assert_agrees(found, name, images, at, 1e-4)
            assert free.counts is not None
            assert found["counts"].tolist() == free.counts.tolist(), (batch, title)


@pytest.mark.parametrize("operators", FORMS)
@pytest.mark.parametrize("name", FEW)
def test_mass_one_is_the_dense_model(name: str, operators: OperatorForm) -> None:
    vit, most = vit_named(name), patches(name)
    images = batch_of(name, 3)
    with torch.no_grad():
        dense = vit(torch.from_numpy(images))
    for mass in (1.0, 2.0):
        found = opened(name, operators)(images, point(mass, 1, most, 3))
        assert found["counts"].tolist() == [vit.num_prefix_tokens + most] * 3
        assert difference(found["logits"], dense) < 1e-4


@pytest.mark.parametrize("name", FEW)
def test_both_forms_keep_the_same_tokens(name: str) -> None:
    images = batch_of(name, 5)
    for title, at in points(5, patches(name)).items():
        function, inline = (opened(name, operators)(images, at) for operators in FORMS)
        np.testing.assert_array_equal(inline["keep"], function["keep"], err_msg=title)
        np.testing.assert_allclose(inline["logits"], function["logits"], rtol=0, atol=1e-4, err_msg=title)


@pytest.mark.slow
@pytest.mark.parametrize("operators", FORMS)
@pytest.mark.parametrize("name", FEW)
def test_half_precision_agrees_with_float32_torch(name: str, operators: OperatorForm) -> None:
    onnx.checker.check_model(finished(name, before_last(name), OPSET, operators, Precision.FP16), full_check=True)
    session = opened(name, operators, Precision.FP16)
    for batch in (1, 5):
        images = batch_of(name, batch, seed=batch)
        for at in points(batch, patches(name)).values():
            found = session(images, at)
            assert found["importance"].dtype == np.float32
            assert_agrees(found, name, images, at, 2e-2)


@pytest.mark.parametrize(
    ("name", "pruning"),
    [("small/3", AdaptivePruning(Score.CLS, 0)), ("plain", AdaptivePruning(Score.MEAN, 1))],
    ids=["first block by class token", "last block"],
)
def test_the_first_and_the_last_block_can_be_pruned_in(name: str, pruning: AdaptivePruning) -> None:
    images = batch_of(name, 3)
    for at in points(3, 16).values():
        found = opened(name, pruning=pruning)(images, at)
        assert_agrees(found, name, images, at, 1e-4, pruning)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    chosen=st.lists(
        st.tuples(st.floats(0, 1.25, width=32), st.integers(1, 16), st.integers(0, 15)), min_size=1, max_size=8
    ),
    seed=st.integers(0, 20),
)
def test_any_mixture_of_points_gives_what_torch_gives(chosen: list[tuple[float, int, int]], seed: int) -> None:
    mass, least, more = (np.asarray(column) for column in zip(*chosen, strict=True))
    at = point(mass, least, np.minimum(least + more, 16), len(chosen))
    images = batch_of(SMALL, len(chosen), seed)
    assert_agrees(opened(SMALL)(images, at), SMALL, images, at, 1e-4)


@pytest.mark.parametrize("operators", FORMS)
@pytest.mark.parametrize("name", FEW)
def test_an_image_does_not_depend_on_its_neighbours(name: str, operators: OperatorForm) -> None:
    session, most, batch = opened(name, operators), patches(name), 6
    images = batch_of(name, batch, seed=9)
    mass = np.linspace(0.2, 1.0, batch)
    at = point(mass, 1, most, batch)
    together = session(images, at)
    for image in range(batch):
        alone = session(images[image : image + 1], point(mass[image], 1, most, 1))
        assert alone["counts"].tolist() == together["counts"][image : image + 1].tolist()
        assert difference(alone["logits"], together["logits"][image : image + 1]) < 1e-4
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = session(images[order], BatchPoint(at.mass[order], at.keep_limits[order]))
    np.testing.assert_array_equal(shuffled["keep"], together["keep"][order])
    assert difference(shuffled["logits"], together["logits"][order]) < 1e-4
    longest_first, short = [most, *[1] * (batch - 1)], np.ones(batch, dtype=int)
    for others in (short, short * most, np.array(longest_first), np.array(longest_first[::-1])):
        for image in range(batch):
            least, limit = others.copy(), others.copy()
            least[image], limit[image] = 1, most
            beside = session(images, point(mass, least, limit, batch))
            assert beside["counts"][image] == together["counts"][image]
            assert difference(beside["logits"][image][None], together["logits"][image][None]) < 1e-4


@pytest.mark.parametrize("operators", FORMS)
def test_the_standards_own_evaluator_gives_the_same_answer(operators: OperatorForm) -> None:
    model, images = finished(SMALL, before_last(SMALL), operators=operators), batch_of(SMALL, 3)
    evaluator = ReferenceEvaluator(with_outputs(model, SELECTION))
    at = points(3, 16)["a mass each"]
    found: Any = evaluator.run(["logits", "counts", "keep"], feeds(images, at))
    expected = opened(SMALL, operators)(images, at)
    np.testing.assert_array_equal(np.asarray(found[2]), expected["keep"])
    np.testing.assert_array_equal(np.asarray(found[1]), expected["counts"])
    assert difference(np.asarray(found[0]), expected["logits"]) < 1e-4


@pytest.mark.parametrize("name", FEW)
def test_inlined_graphs_run_on_openvino(name: str) -> None:
    pytest.importorskip("openvino")
    model = with_outputs(finished(name, before_last(name), operators=OperatorForm.INLINE), SELECTION)
    core = shared_core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    for batch in (1, 4):
        images = batch_of(name, batch)
        for title, at in points(batch, patches(name)).items():
            expected = opened(name, OperatorForm.INLINE)(images, at)
            answer = compiled(feeds(images, at))
            found = {output.get_any_name(): value for output, value in answer.items()}
            np.testing.assert_array_equal(found["keep"], expected["keep"], err_msg=title)
            np.testing.assert_array_equal(found["counts"], expected["counts"], err_msg=title)
            assert difference(found["logits"], expected["logits"]) < 1e-4, title


@pytest.mark.parametrize("operators", FORMS)
def test_features_are_those_of_torch(operators: OperatorForm) -> None:
    model = finished(SMALL, before_last(SMALL), operators=operators, outputs=BOTH)
    onnx.checker.check_model(model, full_check=True)
    assert [output.name for output in model.graph.output] == ["logits", "token_features", "counts"]
    session, module = Opened(model, SELECTION), PrunableViT(vit_named(SMALL), before_last(SMALL), outputs=BOTH)
    for batch in (1, 4):
        images = batch_of(SMALL, batch)
        for title, at in points(batch, 16).items():
            found = session(images, at)
            with torch.no_grad():
                traced = module.trace(torch.from_numpy(images), keep=torch.from_numpy(found["keep"]))
            assert traced.features is not None
            assert found["token_features"].shape == (batch, 17, 32)
            np.testing.assert_allclose(found["token_features"], traced.features, rtol=0, atol=1e-4, err_msg=title)
            assert difference(found["logits"], traced.logits) < 1e-4
