"""Batches: one way to ask and to answer whatever runs the model, and one clear error for what is no batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.runtime import Runner, load
from tests.exported import CLASSES, IMAGE_SIZE, TinyExport
from tests.runtime.cases import CHOICES, COUNT, GOOD, KEPT, ONE_THREAD, PATCHES, SHAPE
from tests.tiny import random_batch


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


@pytest.mark.parametrize("choice", [None, *CHOICES], ids=str)
def test_bound_runs_compute_the_batch_at_the_point_asked_for(
    tiny: TinyExport, tiny_adaptive: Artifact, choice: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a bound call leaves in its outputs is the batch's answer, each time; with no choice, at a fixed point."""
    images, bound = random_batch((COUNT, *SHAPE)), list[Any]()
    runner = load(tiny.half if choice is None else tiny_adaptive, options=ONE_THREAD)
    session = runner._session  # type: ignore[attr-defined]
    make = session.io_binding

    def keep() -> Any:
        bound.append(make())
        return bound[-1]

    monkeypatch.setattr(session, "io_binding", keep)
    asked: dict[str, Any] = choice or {}
    compute, expected = runner.bind(images, PointChoice(**asked)), runner.run(images, **asked)
    for _ in range(2):
        compute()
        logits, counts = bound[0].copy_outputs_to_cpu()
        np.testing.assert_allclose(logits, expected.logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(counts - 1, expected.kept)
