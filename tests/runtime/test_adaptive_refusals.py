"""What an adaptive artifact cannot run: one clear error before anything is computed, or the image that gives none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.runtime import Runner, load
from tests.exported import TinyExport, change_weight, copied, graph_of, with_graph
from tests.runtime.cases import GOOD, ONE_THREAD, RUNTIMES, SHAPE
from tests.tiny import random_batch

CALLS: dict[str, Callable[[Runner, NDArray[np.float32], dict[str, Any]], object]] = {
    "run": lambda runner, images, choice: runner.run(images, **choice),
    "select": lambda runner, images, choice: runner.select(images, **choice),
    "bind": lambda runner, images, choice: runner.bind(images, PointChoice(**choice)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("choice", "match"),
    [
        ({"point": "none"}, "no point 'none'"),
        ({"mass": float("nan")}, "mass nan is no number"),
        ({"mass": [0.5, float("inf")]}, "mass of image 1, inf"),
        ({"mass": [0.5, -1]}, "mass of image 1, -1"),
        ({"mass": [0.5] * 3}, r"mass has shape \[3\] for a batch of 2"),
        ({"min_keep": 0}, "min_keep 0 is outside 1 to 36"),
        ({"max_keep": [36, 37]}, "max_keep of image 1, 37, is outside 1 to 36"),
        ({"max_keep": 2.5}, r"max_keep 2\.5 is no whole number"),
        ({"min_keep": [1, 9], "max_keep": 8}, "min_keep of image 1, 9, is above max_keep"),
    ],
)
def test_points_that_cannot_be(adaptive_runner: Runner, call: str, choice: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        CALLS[call](adaptive_runner, GOOD, choice)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "choice", [{"point": "default"}, {"mass": 0.5}, {"mass": [0.5, 0.5]}, {"min_keep": 1}, {"max_keep": 18}], ids=str
)
def test_a_fixed_point_takes_none(runner: Runner, dense_runner: Runner, call: str, choice: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="is a density artifact: its operating point is fixed"):
        CALLS[call](runner, GOOD, choice)
    with pytest.raises(InvalidArgument, match="is dense" if call == "select" else "is a dense artifact"):
        CALLS[call](dense_runner, GOOD, choice)


@pytest.mark.parametrize("form", ["dense", "half", "adaptive"])
@pytest.mark.parametrize("call", CALLS)
def test_more_tokens_than_int32_counts_are_refused_before_they_are_copied(
    tiny: TinyExport, tiny_adaptive: Artifact, form: str, call: str
) -> None:
    """The images share the memory of one; a copy would take terabytes."""
    artifact = tiny_adaptive if form == "adaptive" else getattr(tiny, form)
    runner = load(artifact, options=ONE_THREAD)
    # Queries, keys and values of every head of each of 37 tokens, as if heads were as narrow as any.
    most = (2**31 - 1) // (37 * 3 * (artifact.manifest.model.geometry.attention_width // 8))
    for batch in (most + 1, 2**31):
        images = np.broadcast_to(GOOD[:1], (batch, *SHAPE))
        with pytest.raises(InvalidArgument, match=f"a batch of {batch} images has more tokens than int32") as caught:
            CALLS[call](runner, images, {})
        assert caught.value.hint == f"at most {most}"


@pytest.mark.parametrize("part", ["patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "blocks.1.attn.qkv.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_give_no_importance_are_named(
    tiny_adaptive: Artifact, tmp_path: Path, part: str, value: float
) -> None:
    artifact = copied(tiny_adaptive, tmp_path)
    model = graph_of(artifact)
    change_weight(model, part, value)
    runner = load(with_graph(artifact, model).path, options=ONE_THREAD)
    for choice in ({}, {"point": "fast"}, {"mass": [0.0, 1.0]}):
        with pytest.raises(ModelError, match="image 0 of the batch: its logits are not finite"):
            runner.run(GOOD, **choice)
        with pytest.raises(ModelError, match="image 0 of the batch: its importance scores are not finite"):
            runner.select(GOOD, **choice)


def spoilt(images: NDArray[np.float32], places: list[int], value: float) -> NDArray[np.float32]:
    images = images.copy()
    images[places, 0, 5, 7] = value
    return images


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("places", [[0], [2], [4], [1, 3]], ids=str)
def test_pixels_that_are_no_numbers_are_named_by_image(
    adaptive_runner: Runner, places: list[int], value: float
) -> None:
    images = spoilt(random_batch((5, *SHAPE)), places, value)
    for choice in ({}, {"point": "fast"}, {"mass": [0.0, 0.3, 0.5, 0.7, 1.0]}):
        with pytest.raises(ModelError, match=f"image {places[0]} of the batch: its logits are not finite"):
            adaptive_runner.run(images, **choice)
        with pytest.raises(ModelError, match=f"image {places[0]} of the batch: its importance scores are not finite"):
            adaptive_runner.select(images, **choice)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", range(3))
def test_pixels_that_are_no_numbers_concern_no_other_image(tiny_adaptive: Artifact, place: int, value: float) -> None:
    session = onnxruntime.InferenceSession(str(tiny_adaptive.model_path), providers=["CPUExecutionProvider"])
    images = random_batch((3, *SHAPE))
    point = {"mass": np.array([0.3, 0.6, 1.0], np.float32), "keep_limits": np.array([[1, 36]] * 3, np.int32)}
    wanted, kept = session.run(["logits", "counts"], {"images": images, **point})
    found, counts = session.run(["logits", "counts"], {"images": spoilt(images, [place], value), **point})
    others = np.arange(3) != place
    np.testing.assert_allclose(found[others], wanted[others], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(counts[others], kept[others])
    assert not np.isfinite(found[place]).any()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runner_answers_again_after_a_refusal(tiny_adaptive: Artifact, runtime: str) -> None:
    runner = load(tiny_adaptive, runtime, ONE_THREAD)
    before = runner.run(GOOD)
    with pytest.raises(ModelError):
        runner.run(spoilt(GOOD, [1], np.nan))
    with pytest.raises(InvalidArgument):
        runner.run(GOOD, mass=-1)
    np.testing.assert_array_equal(runner.run(GOOD).logits, before.logits)
