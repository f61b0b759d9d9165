"""One served artifact: requests of their own points share batches; queues, time limits and clients that leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.errors import InvalidArgument, NotFinite, RuntimeUnavailable, SaitError
from sait_deploy.runtime import RunOptions, load
from sait_deploy.serving.batching import BatchLimits, Stage
from sait_deploy.serving.ladder import PointLadder
from sait_deploy.serving.model import OWN_POINT, ServedModel
from sait_deploy.serving.refusals import Refused, Status
from sait_deploy.serving.stages import ImageAnswer, Prepared, Stages, open_stages
from tests.exported import IMAGE_SIZE, TinyExport
from tests.serving.served import Recorded
from tests.tiny import random_batch

ONE_THREAD = RunOptions(threads=1)
LONG = 30.0


class Gated:
    """Real stages behind a gate that a test opens, and that can be told to fail."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.whole, self.most_images, self.tokens = stages.whole, stages.most_images, stages.tokens
        self.gate, self.fails = threading.Event(), False
        self.gate.set()

    def stem(self, images: Sequence[Prepared]) -> list[Prepared]:
        assert self.gate.wait(LONG)
        return self._stages.stem(images)

    def trunk(self, images: Sequence[Prepared]) -> list[ImageAnswer | SaitError]:
        assert self.gate.wait(LONG)
        if self.fails:
            raise RuntimeUnavailable("out of memory")
        return self._stages.trunk(images)


class Bench:
    """A served artifact and what it is made of."""

    def __init__(
        self,
        artifact: Artifact,
        budget: int = 100,
        queue: int = 64,
        ladder: PointLadder | None = None,
        images: int | None = None,
    ) -> None:
        self.stages, self.seen = Gated(open_stages(artifact, "onnxruntime", ONE_THREAD)), Recorded()
        executor = ThreadPoolExecutor(1)
        limits = BatchLimits(budget, images)
        self.model = ServedModel("m", artifact.manifest, self.stages, executor, limits, ladder, None, queue, self.seen)

    def ask(self, images: int, choice: PointChoice = DEFAULT_CHOICE, limit: float = LONG) -> Coroutine[Any, Any, Any]:
        return self.model.answer(random_batch((images, 3, IMAGE_SIZE, IMAGE_SIZE)), choice, limit)

    async def held(self, *requests: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
        """Begins requests; the first is being computed, and goes on when the gate is opened."""
        self.stages.gate.clear()
        tasks = []
        for request in requests:
            tasks.append(asyncio.ensure_future(request))
            await asyncio.sleep(0.02)
        return tasks


def test_requests_with_points_of_their_own_share_a_batch_and_answer_as_alone(tiny_adaptive: Artifact) -> None:
    bench, runner = Bench(tiny_adaptive, budget=1000), load(tiny_adaptive, "onnxruntime", ONE_THREAD)
    choices = [
        PointChoice("fast"),
        PointChoice(mass=0.9, max_keep=[7, 30]),
        DEFAULT_CHOICE,
        PointChoice("wide", min_keep=20),
    ]

    async def run() -> list[Any]:
        tasks = await bench.held(*(bench.ask(2, choice) for choice in choices))
        bench.stages.gate.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(run())
    assert [answer.point for answer in answers] == ["fast", OWN_POINT, "mass0.6", OWN_POINT]
    assert (Stage.TRUNK, 8) in [(stage, images) for stage, images, _ in bench.seen.batches]
    images = random_batch((2, 3, IMAGE_SIZE, IMAGE_SIZE))
    for choice, answer in zip(choices, answers, strict=True):
        alone = runner.run_at(images, choice)
        np.testing.assert_array_equal([image.kept for image in answer.images], alone.kept)
        np.testing.assert_allclose([image.logits for image in answer.images], alone.logits, rtol=1e-4, atol=1e-4)


def test_no_batch_has_more_tokens_than_the_budget(tiny_adaptive: Artifact) -> None:
    bench = Bench(tiny_adaptive, budget=60)

    async def run() -> None:
        await asyncio.gather(*(bench.ask(1 + i % 4, PointChoice(mass=0.2 * (1 + i % 5))) for i in range(20)))

    asyncio.run(run())
    trunks = [(images, tokens) for stage, images, tokens in bench.seen.batches if stage is Stage.TRUNK]
    assert sum(images for images, _ in trunks) == 50
    assert all(tokens <= 60 or images == 1 for images, tokens in trunks)
    assert max(images for images, _ in trunks) > 1


def test_no_batch_has_more_images_than_it_may(tiny_adaptive: Artifact) -> None:
    bench = Bench(tiny_adaptive, budget=1000, images=3)

    async def run() -> None:
        await asyncio.gather(*(bench.ask(4) for _ in range(5)))

    asyncio.run(run())
    assert {stage for stage, _, _ in bench.seen.batches} == set(Stage)
    assert max(images for _, images, _ in bench.seen.batches) == 3


def test_a_full_queue_refuses_and_says_when_to_come_back(tiny_adaptive: Artifact) -> None:
    bench = Bench(tiny_adaptive, queue=4)

    async def run() -> None:
        tasks = await bench.held(bench.ask(2), bench.ask(4))
        with pytest.raises(Refused, match="4 images wait already") as caught:
            await bench.ask(1)
        assert (caught.value.status, caught.value.retry_after) == (Status.BUSY, 1)
        bench.stages.gate.set()
        await asyncio.gather(*tasks)
        assert len((await bench.ask(4)).images) == 4

    asyncio.run(run())
    with pytest.raises(Refused, match="a request of 5 images") as caught:
        asyncio.run(bench.ask(5))
    assert caught.value.status is Status.TOO_LARGE


def test_time_is_up_for_one_request_alone_and_its_work_is_dropped(tiny_adaptive: Artifact) -> None:
    bench = Bench(tiny_adaptive)

    async def run() -> None:
        first, late, other = await bench.held(bench.ask(1), bench.ask(3, limit=0.1), bench.ask(1))
        with pytest.raises(Refused, match=r"no answer within 0\.1 s") as caught:
            await late
        assert caught.value.status is Status.LATE
        bench.stages.gate.set()
        await asyncio.gather(first, other)
        assert bench.model.waiting == 0

    asyncio.run(run())
    assert sum(images for stage, images, _ in bench.seen.batches if stage is Stage.TRUNK) == 2


def test_the_work_of_a_client_that_left_is_dropped(tiny_adaptive: Artifact) -> None:
    bench = Bench(tiny_adaptive)

    async def run() -> None:
        first, gone, other = await bench.held(bench.ask(1), bench.ask(3), bench.ask(1))
        gone.cancel()
        await asyncio.sleep(0.01)
        assert bench.model.waiting == 2
        first.cancel()  # being computed: its result goes nowhere
        bench.stages.gate.set()
        assert len((await other).images) == 1
        await asyncio.gather(first, gone, return_exceptions=True)
        assert first.cancelled() and gone.cancelled()
        assert bench.model.waiting == bench.seen.waiting == 0

    asyncio.run(run())
    assert sum(images for stage, images, _ in bench.seen.batches if stage is Stage.STEM) == 2


def test_a_batch_that_fails_fails_alone(tiny_adaptive: Artifact) -> None:
    bench = Bench(tiny_adaptive)

    async def run() -> None:
        bench.stages.fails = True
        results = await asyncio.gather(bench.ask(2), bench.ask(1), return_exceptions=True)
        assert all(isinstance(result, RuntimeUnavailable) for result in results)
        bench.stages.fails = False
        assert len((await bench.ask(2)).images) == 2

    asyncio.run(run())


def test_an_image_of_no_numbers_fails_its_own_request_alone(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    for artifact in (tiny.half, tiny_adaptive):
        bench = Bench(artifact)
        wrong = np.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), np.nan, np.float32)

        async def run(bench: Bench = bench, wrong: np.ndarray[Any, Any] = wrong) -> list[Any]:
            tasks = await bench.held(bench.ask(1), bench.model.answer(wrong, DEFAULT_CHOICE, LONG), bench.ask(2))
            bench.stages.gate.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

        first, bad, last = asyncio.run(run())
        assert isinstance(bad, NotFinite)
        assert (len(first.images), len(last.images)) == (1, 2)


def test_points_of_a_request_are_checked_before_it_waits(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    bench = Bench(tiny_adaptive)
    for choice, what in (
        (PointChoice("fats"), "no point 'fats'"),
        (PointChoice(mass=float("nan")), "mass nan is no number"),
        (PointChoice(min_keep=9, max_keep=3), "min_keep 9 is above max_keep"),
        (PointChoice(max_keep=37), "outside 1 to 36"),
        (PointChoice(mass=[0.1, 0.2, 0.3]), r"shape \[3\] for a batch of 2"),
    ):
        with pytest.raises(InvalidArgument, match=what):
            asyncio.run(bench.ask(2, choice))
    with pytest.raises(InvalidArgument, match="operating point is fixed"):
        asyncio.run(Bench(tiny.half).ask(1, PointChoice(mass=0.5)))
    assert asyncio.run(Bench(tiny.half).ask(1)).point == "default"
    assert asyncio.run(Bench(tiny.dense).ask(1)).point == "dense"


def test_the_load_chooses_for_requests_that_name_no_point(tiny_adaptive: Artifact) -> None:
    ladder = PointLadder(("wide", "mass0.6", "fast"), 0.2, 0.0)
    bench = Bench(tiny_adaptive, budget=100, queue=1000, ladder=ladder)

    async def run() -> list[str]:
        tasks = await bench.held(*(bench.ask(1) for _ in range(60)), bench.ask(1, PointChoice("wide")))
        await asyncio.sleep(0.3)  # images have waited longer than the target when computing goes on
        bench.stages.gate.set()
        return [answer.point for answer in await asyncio.gather(*tasks)]

    *points, pinned = asyncio.run(run())
    assert points[0] == "wide"
    assert points[-1] in ("mass0.6", "fast")
    assert pinned == "wide"
