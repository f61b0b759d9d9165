"""Engines served in stages, on a stand-in for a GPU: all but TensorRT itself and the GPU is the real thing."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.engine.options import BatchRange
from sait_deploy.errors import ArtifactError, NotFinite
from sait_deploy.runtime import RunOptions, load
from sait_deploy.serving.batching import BatchLimits, Stage
from sait_deploy.serving.model import ServedModel
from sait_deploy.serving.options import ModelsOptions
from sait_deploy.serving.server import open_server
from sait_deploy.serving.stages import ImageAnswer, ImagePoint, Prepared, Stages, open_stages
from tests.exported import IMAGE_SIZE, TinyExport
from tests.runtime.engines import BATCH, CLOSE, engine_of, on_host
from tests.serving.served import Recorded
from tests.tiny import random_batch

pytest.importorskip("tensorrt_rtx", reason="engines are built by TensorRT for RTX")

RUNTIMES = ("tensorrt", "tensorrt-rtx")
ALWAYS_FOUR = BatchRange(4, 4, 6)
PREFIX = 1


def staged(artifact: Artifact, runtime: str, monkeypatch: pytest.MonkeyPatch, batch: BatchRange = BATCH) -> Stages:
    engine = engine_of(artifact, batch)
    on_host(engine, runtime, monkeypatch)
    return open_stages(engine.artifact, runtime, RunOptions())


def points_of(images: int) -> list[ImagePoint]:
    draw = np.random.default_rng(images)
    least = draw.integers(1, 12, images)
    return [ImagePoint(float(np.float32(draw.uniform(0.1, 1.1))), int(low), int(low) + 20) for low in least]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("batch", [BATCH, ALWAYS_FOUR])
def test_images_of_several_stems_share_a_trunk_and_answer_as_they_do_alone(
    tiny_adaptive: Artifact, monkeypatch: pytest.MonkeyPatch, runtime: str, batch: BatchRange
) -> None:
    pixels, points = random_batch((5, 3, IMAGE_SIZE, IMAGE_SIZE)), points_of(5)
    stages = staged(tiny_adaptive, runtime, monkeypatch, batch)
    assert (stages.whole, stages.most_images) == ("", batch.largest)
    given = [Prepared(image, point) for image, point in zip(pixels, points, strict=True)]
    behind = [*stages.stem(given[:1]), *stages.stem(given[1:3]), *stages.stem(given[3:])]
    reference = load(tiny_adaptive, "onnxruntime", RunOptions(threads=1))
    masses, least, most = zip(*((p.mass, p.min_keep, p.max_keep) for p in points), strict=True)
    expected = reference.select(pixels, mass=masses, min_keep=least, max_keep=most)
    for order in ([4, 0, 2], [1], [3, 2, 1, 0, 4]):
        for number, answer in zip(order, stages.trunk([behind[i] for i in order]), strict=True):
            assert isinstance(answer, ImageAnswer)
            np.testing.assert_allclose(answer.logits, expected.logits[number], **CLOSE)
            np.testing.assert_array_equal(answer.keep, expected.keep[number, PREFIX:])
            assert answer.kept == expected.keep[number, PREFIX:].sum() == stages.tokens(behind[number]) - PREFIX


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_image_of_no_numbers_harms_no_other_of_its_batch(
    tiny_adaptive: Artifact, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    stages = staged(tiny_adaptive, runtime, monkeypatch, ALWAYS_FOUR)
    pixels, points = random_batch((3, 3, IMAGE_SIZE, IMAGE_SIZE)), points_of(3)
    good = stages.trunk(stages.stem([Prepared(*one) for one in zip(pixels, points, strict=True)]))
    pixels[0] = np.nan
    bad, *others = stages.trunk(stages.stem([Prepared(*one) for one in zip(pixels, points, strict=True)]))
    assert isinstance(bad, NotFinite)
    for one, before in zip(others, good[1:], strict=True):
        assert isinstance(one, ImageAnswer) and isinstance(before, ImageAnswer)
        np.testing.assert_allclose(one.logits, before.logits, **CLOSE)


def test_requests_of_their_own_points_share_batches_that_the_engine_takes(
    tiny_adaptive: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, seen = staged(tiny_adaptive, "tensorrt", monkeypatch), Recorded()
    executor = ThreadPoolExecutor(1)
    manifest = tiny_adaptive.manifest
    model = ServedModel("m", manifest, stages, executor, BatchLimits(10_000), None, None, 64, seen)
    choices = [PointChoice("fast"), PointChoice(mass=0.9, max_keep=[7, 30]), PointChoice(), PointChoice("wide")] * 2
    images = random_batch((2, 3, IMAGE_SIZE, IMAGE_SIZE))

    async def run() -> list[Any]:
        return await asyncio.gather(*(model.answer(images, choice, 30.0) for choice in choices))

    reference = load(tiny_adaptive, "onnxruntime", RunOptions(threads=1))
    for choice, answer in zip(choices, asyncio.run(run()), strict=True):
        alone = reference.run_at(images, choice)
        np.testing.assert_array_equal([image.kept for image in answer.images], alone.kept)
        np.testing.assert_allclose([image.logits for image in answer.images], alone.logits, **CLOSE)
    assert {stage for stage, _, _ in seen.batches} == set(Stage)
    assert max(count for _, count, _ in seen.batches) == BATCH.largest


def test_a_density_engine_is_served_whole_and_fills_the_batches_it_needs(
    tiny: TinyExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = staged(tiny.half, "tensorrt-rtx", monkeypatch, ALWAYS_FOUR)
    assert stages.whole == "a density artifact has no seam; one exported with --mass has"
    pixels = random_batch((2, 3, IMAGE_SIZE, IMAGE_SIZE))
    found = stages.trunk([Prepared(image, None) for image in pixels])
    expected = load(tiny.half, "onnxruntime", RunOptions(threads=1)).run(pixels)
    assert [one.kept for one in found if isinstance(one, ImageAnswer)] == expected.kept.tolist()
    np.testing.assert_allclose([one.logits for one in found], expected.logits, **CLOSE)  # type: ignore[union-attr]


def test_a_server_of_an_artifact_without_engine_says_what_to_run(
    tiny_adaptive: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_host(engine_of(tiny_adaptive), "tensorrt-rtx", monkeypatch)
    options = ModelsOptions((tiny_adaptive.path,), runtime="tensorrt-rtx")
    with pytest.raises(ArtifactError, match="has no tensorrt-rtx engine") as caught:
        open_server(options, Recorded())
    assert caught.value.hint == "run: sait-deploy build-engine --builder tensorrt-rtx"
