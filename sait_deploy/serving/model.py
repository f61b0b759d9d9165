"""One artifact being served: requests wait, are computed in batches of tokens, and get their answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.serving.batching import Batch, BatchLimits, Stage, TokenBatcher
from sait_deploy.serving.ladder import PointLadder
from sait_deploy.serving.refusals import Refused, Status
from sait_deploy.serving.stages import ImageAnswer, ImagePoint, Prepared, Stages

STEM_IMAGES: Final = 8
"""Images of a stem's batch: processors gain little from more, and each image waits for the whole batch."""

OWN_POINT: Final = "request"
"""What an answer calls the point where a request gave a mass or limits of its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

    Attributes:
        images: one answer for each image.
        point: name of the operating point, ``request`` where the request gave a mass or limits of its own.
    """

    images: tuple[ImageAnswer, ...]
    point: str


class Observer(Protocol):
    """Is told what happens, for metrics."""

    def queued(self, model: str, images: int, wait: float) -> None:
        """So many images wait, and one that arrived now would wait so many seconds."""

    def computed(self, model: str, batch: Stage, images: int, tokens: int, seconds: float) -> None:
        """A batch was computed; ``tokens`` of a stem's is 0."""

    def answered(self, model: str, answer: Answer, seconds: float) -> None:
        """A request was answered after so many seconds."""

    def refused(self, status: Status) -> None:
        """A request got no answer."""


class NoObserver:
    """An observer that keeps nothing."""

    def queued(self, model: str, images: int, wait: float) -> None:
        """So many images wait."""

    def computed(self, model: str, batch: Stage, images: int, tokens: int, seconds: float) -> None:
        """A batch was computed."""

    def answered(self, model: str, answer: Answer, seconds: float) -> None:
        """A request was answered."""

    def refused(self, status: Status) -> None:
        """A request got no answer."""


@dataclass(eq=False, slots=True)
class _Request:
    """A request on its way; its point is settled when the first of its images is computed."""

    points: Sequence[ImagePoint] | None
    point: str
    arrived: float


@dataclass(eq=False, slots=True)
class _Item:
    """One image of a request."""

    request: _Request
    index: int
    prepared: Prepared
    done: asyncio.Future[ImageAnswer]


class ServedModel:
    """Answers requests to one artifact. It belongs to one event loop; batches are computed in the executor.

    Args:
        name: what requests call it.
        manifest: of the artifact.
        stages: what computes.
        executor: of one thread, which all models of a process share.
        limits: of batches.
        ladder: chooses the point of requests that name none; None for always the default.
        default: what requests that name no point get where there is no ladder, and what those that give a mass or
            limits alone get of the rest; None for the artifact's first.
        queue: images that may wait.
        observer: is told what happens.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        stages: Stages,
        executor: Executor,
        limits: BatchLimits,
        ladder: PointLadder | None,
        default: str | None,
        queue: int,
        observer: Observer,
    ) -> None:
        self.name, self.manifest, self.whole = name, manifest, stages.whole
        self._stages, self._executor, self._ladder = stages, executor, ladder
        self._batcher: TokenBatcher[_Item] = TokenBatcher(
            limits.tokens, limits.within(STEM_IMAGES), limits.within(stages.most_images)
        )
        self._default, self._queue, self._observer = default, queue, observer
        self._computing, self._busy = 0, 0.0
        self._seconds_per_image = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Images that are queued or being computed."""
        return self._batcher.waiting + self._batcher.cut + self._computing

    @property
    def wait(self) -> float:
        """How long an image that arrives now would wait, seconds."""
        oldest = self._batcher.oldest
        so_far = 0.0 if oldest is None else time.monotonic() - oldest.request.arrived
        return max(so_far, self.waiting * self._seconds_per_image)

    async def answer(self, images: NDArray[np.float32], choice: PointChoice, time_limit: float) -> Answer:
        """Answers a request. When the caller is cancelled, what is still queued of it is forgotten.

        Args:
            images: float32 [B, 3, H, W], as preprocessed; the shape was checked before.
            choice: operating points that the request asks for.
            time_limit: seconds.

        Raises:
            InvalidArgument: an operating point that cannot be, or more images than may wait.
            Refused: the queue is full, or time is up.
            SaitError: the runtime failed, or the answer is no number.
        """
        started = time.monotonic()
        request = self._request(choice, len(images), started)
        self._check_room(len(images))
        loop = asyncio.get_running_loop()
        items = [_Item(request, i, Prepared(image, None), loop.create_future()) for i, image in enumerate(images)]
        if self._ladder is not None:
            self._ladder.arrived(started, len(items))
        for item in items:
            self._enqueue(item)
        self._observer.queued(self.name, self.waiting, self.wait)
        self._wake()
        try:
            async with asyncio.timeout(time_limit):
                answers = await asyncio.gather(*(item.done for item in items))
        except TimeoutError:
            raise Refused(
                Status.LATE, f"no answer within {time_limit:g} s", "try again, or send fewer images at once"
            ) from None
        finally:
            for item in items:
                if not item.done.done() or item.done.cancelled():
                    self._batcher.discard(item)
                    item.done.cancel()
            self._observer.queued(self.name, self.waiting, self.wait)
        answer = Answer(tuple(answers), request.point)
        self._observer.answered(self.name, answer, time.monotonic() - started)
        return answer

    def _request(self, choice: PointChoice, images: int, now: float) -> _Request:
        if self.manifest.form is not Form.ADAPTIVE:
            resolve(self.manifest, images, choice)
            default = self.manifest.default_point
            return _Request(None, "dense" if default is None else default.name, now)
        if not choice.is_default:
            own = choice.mass is not None or choice.min_keep is not None or choice.max_keep is not None
            if choice.point is None:  # what it leaves open is the server's default, whatever the load
                choice = replace(choice, point=self._default)
            return _Request(self._points(choice, images), OWN_POINT if own else str(choice.point), now)
        return _Request(None, "", now)

    def _points(self, choice: PointChoice, images: int) -> list[ImagePoint]:
        found = resolve(self.manifest, images, choice)
        assert found is not None
        each = zip(found.mass, found.keep_limits, strict=True)
        return [ImagePoint(float(mass), int(limits[0]), int(limits[1])) for mass, limits in each]

    def _check_room(self, images: int) -> None:
        if images > self._queue:
            raise Refused(
                Status.TOO_LARGE, f"a request of {images} images is too large", f"send at most {self._queue} at once"
            )
        if self._batcher.waiting + self._batcher.cut + images > self._queue:
            after = max(1, math.ceil(self.wait))
            raise Refused(Status.BUSY, f"{self._queue} images wait already", f"try again in {after} s", after)

    def _enqueue(self, item: _Item) -> None:
        """Queues an image, before the stem, or before the trunk where there is no stem."""
        if self.whole:
            self._settle(item)
            self._batcher.add_cut(item, self._stages.tokens(item.prepared))
        else:
            self._batcher.add(item)

    def _settle(self, item: _Item) -> None:
        """Gives an image its operating point: that of its request, or the one that the load asks for."""
        request = item.request
        if self.manifest.form is not Form.ADAPTIVE:
            return
        if request.points is None:
            name = self._default if self._ladder is None else self._ladder.update(time.monotonic(), self.wait)
            request.point = next(iter(self.manifest.operating_points)) if name is None else name
            request.points = self._points(PointChoice(request.point), 1)
        point = request.points[item.index if len(request.points) > 1 else 0]
        item.prepared = Prepared(item.prepared.image, point)

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        """Computes until nothing waits."""
        while (batch := self._batcher.take()) is not None:
            items = [item for item in batch.items if not item.done.done()]
            if items:
                self._computing = len(items)
                try:
                    await self._compute(batch, items)
                finally:
                    self._computing = 0

    async def _compute(self, batch: Batch[_Item], items: list[_Item]) -> None:
        try:
            if batch.stage is Stage.STEM:
                await self._compute_stem(items)
            else:
                await self._compute_trunk(items, batch.tokens)
        except Exception as error:  # whatever a runtime raises is the answer to this batch, and the next is computed
            for item in items:
                _finish(item, error)

    async def _compute_stem(self, items: list[_Item]) -> None:
        for item in items:
            self._settle(item)
        started, loop = time.monotonic(), asyncio.get_running_loop()
        found = await loop.run_in_executor(self._executor, self._stages.stem, [item.prepared for item in items])
        self._busy += time.monotonic() - started
        self._observer.computed(self.name, Stage.STEM, len(items), 0, time.monotonic() - started)
        for item, prepared in zip(items, found, strict=True):
            item.prepared = prepared
            if not item.done.done():
                self._batcher.add_cut(item, self._stages.tokens(prepared))

    async def _compute_trunk(self, items: list[_Item], tokens: int) -> None:
        started, loop = time.monotonic(), asyncio.get_running_loop()
        found = await loop.run_in_executor(self._executor, self._stages.trunk, [item.prepared for item in items])
        self._busy += time.monotonic() - started
        self._observer.computed(self.name, Stage.TRUNK, len(items), tokens, time.monotonic() - started)
        self._seconds_per_image, self._busy = self._busy / len(items), 0.0
        points = {item.request.point for item in items}
        if self._ladder is not None and len(points) == 1:
            self._ladder.computed(points.pop(), self._seconds_per_image)
        for item, result in zip(items, found, strict=True):
            _finish(item, result)


def _finish(item: _Item, result: ImageAnswer | Exception) -> None:
    if item.done.done():  # its client is gone, or its time is up
        return
    if isinstance(result, ImageAnswer):
        item.done.set_result(result)
    else:
        item.done.set_exception(result)
        item.done.exception()  # asyncio would print an error that nobody waits for any more
