"""A server on paper: replicas with the server's own batching and points, and measured costs in place of computing."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving_costs import ModelCost
from sait_deploy.serving.batching import Batch, BatchLimits, Stage, TokenBatcher
from sait_deploy.serving.ladder import PointLadder
from sait_deploy.serving.model import STEM_IMAGES

_MOST_IMAGES: Final = 1 << 16
_CONTROL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What each replica is.

    Attributes:
        cost: of its batches.
        overhead: seconds that each request costs beside them: what of HTTP, routing and the client takes processors
            from computing.
        limits: of batches.
        queue: images that may wait.
        prefix: tokens of each image that are no patches.
        points: the load's points from dear to cheap, by the patch tokens that each keeps; none where requests say it.
        target: the latency that the load's points keep, seconds.
    """

    cost: ModelCost
    overhead: float
    limits: BatchLimits
    queue: int
    prefix: int
    points: Mapping[str, int] = field(default_factory=dict)
    target: float = 1.0


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Ray Serve's policy: as many replicas as give each so many requests at a time, once that has held for a while.

    Attributes:
        ongoing: requests at a time that a replica should have.
        least: replicas.
        most: replicas.
        up_seconds: that more must have been wanted.
        down_seconds: that fewer must have been wanted.
        start_seconds: until a new replica answers.
    """

    ongoing: float
    least: int
    most: int
    up_seconds: float = 5.0
    down_seconds: float = 60.0
    start_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """What became of the requests.

    Attributes:
        latencies: float64 [requests], seconds; infinite for those that were refused.
        kept: int64 [requests], patch tokens.
        replicas: mean number over time.
    """

    latencies: NDArray[np.float64]
    kept: NDArray[np.int64]
    replicas: float


class _Replica:
    """One process that computes, on a simulated clock."""

    def __init__(self, machine: Machine, arrivals: Sequence[float], kept: NDArray[np.int64]) -> None:
        self._machine, self._arrivals, self._kept = machine, arrivals, kept
        limits = machine.limits
        stem_images, most = limits.within(STEM_IMAGES), limits.within(_MOST_IMAGES)
        self._batcher: TokenBatcher[int] = TokenBatcher(limits.tokens, stem_images, most)
        self._ladder = PointLadder(tuple(machine.points), machine.target, 0.0) if machine.points else None
        self._batch: Batch[int] | None = None
        self._busy = self._per_image = 0.0
        self._new = 0

    @property
    def ongoing(self) -> int:
        """Images that are queued or being computed."""
        computing = 0 if self._batch is None else len(self._batch.items)
        return self._batcher.waiting + self._batcher.cut + computing

    def take(self, now: float, request: int) -> bool:
        """Queues a request, unless the queue is full."""
        if self._batcher.waiting + self._batcher.cut >= self._machine.queue:
            return False
        self._new += 1
        if self._ladder is not None:
            self._ladder.arrived(now, 1)
        if self._machine.cost.stem is None:
            self._batcher.add_cut(request, self._tokens(request))
        else:
            self._batcher.add(request)
        return True

    def begin(self, now: float) -> float | None:
        """Begins the next batch, and returns when it is done; None where nothing waits, or one is being computed."""
        if self._batch is not None or (batch := self._batcher.take()) is None:
            return None
        self._batch = batch
        cost = self._machine.cost
        if batch.stage is Stage.STEM:
            assert cost.stem is not None
            if self._ladder is not None:
                for request in batch.items:
                    self._kept[request] = self._machine.points[self._ladder.update(now, self._wait(now))]
            seconds = cost.stem.seconds(len(batch.items), 0)
        else:
            seconds = cost.trunk.seconds(len(batch.items), batch.tokens)
        seconds += self._new * self._machine.overhead
        self._new = 0
        self._busy += seconds
        return now + seconds

    def end(self) -> tuple[int, ...]:
        """Ends the batch, and returns the requests that it answered."""
        batch, self._batch = self._batch, None
        assert batch is not None
        if batch.stage is Stage.STEM:
            for request in batch.items:
                self._batcher.add_cut(request, self._tokens(request))
            return ()
        self._per_image, self._busy = self._busy / len(batch.items), 0.0
        points = {int(self._kept[request]) for request in batch.items}
        if self._ladder is not None and len(points) == 1:
            names = {count: name for name, count in self._machine.points.items()}
            self._ladder.computed(names[points.pop()], self._per_image)
        return batch.items

    def _wait(self, now: float) -> float:
        oldest = self._batcher.oldest
        return max(0.0 if oldest is None else now - self._arrivals[oldest], self.ongoing * self._per_image)

    def _tokens(self, request: int) -> int:
        return int(self._kept[request]) + self._machine.prefix


def simulate(
    machine: Machine,
    arrivals: Sequence[float],
    kept: NDArray[np.int64],
    replicas: int,
    autoscaling: Autoscaling | None = None,
    seed: int = 0,
) -> Simulated:
    """Runs a server of replicas on a simulated clock.

    Each request goes to the less busy of two replicas drawn at random, as Ray Serve sends them.

    Args:
        machine: what each replica is.
        arrivals: seconds, ascending.
        kept: int64 [requests], patch tokens of each.
        replicas: at the beginning.
        autoscaling: None for as many throughout.
        seed: of the draws.
    """
    return _Simulation(machine, arrivals, kept.copy(), replicas, autoscaling, random.Random(seed)).run()


class _Simulation:
    def __init__(
        self,
        machine: Machine,
        arrivals: Sequence[float],
        kept: NDArray[np.int64],
        replicas: int,
        autoscaling: Autoscaling | None,
        draws: random.Random,
    ) -> None:
        self._machine, self._arrivals, self._kept, self._draws = machine, arrivals, kept, draws
        self._active = [self._replica() for _ in range(replicas)]
        self._autoscaling, self._starting = autoscaling, 0
        self._latencies = np.full(len(arrivals), math.inf)
        self._events: list[tuple[float, int, _Replica | None]] = []
        self._order = itertools.count()
        self._since: tuple[int, float] = (0, 0.0)
        self._replica_seconds = 0.0

    def run(self) -> Simulated:
        """Takes arrivals and ends of batches in the order of their times."""
        end = self._arrivals[-1] if len(self._arrivals) else 0.0
        following = 0
        control = _CONTROL_SECONDS if self._autoscaling is not None else math.inf
        while following < len(self._arrivals) or self._events:
            arrival = self._arrivals[following] if following < len(self._arrivals) else math.inf
            event = self._events[0][0] if self._events else math.inf
            now = min(arrival, event, control)
            if now == arrival:
                self._arrive(now, following)
                following += 1
            elif now == event:
                self._end(now, heapq.heappop(self._events)[2])
            else:
                self._control(now)
                control = now + _CONTROL_SECONDS if now < end else math.inf
        mean = self._replica_seconds / end if self._autoscaling is not None and end else float(len(self._active))
        return Simulated(self._latencies, self._kept, mean)

    def _replica(self) -> _Replica:
        return _Replica(self._machine, self._arrivals, self._kept)

    def _arrive(self, now: float, request: int) -> None:
        first, second = self._draws.choice(self._active), self._draws.choice(self._active)
        chosen = min(first, second, key=lambda replica: replica.ongoing)
        if chosen.take(now, request):
            self._begin(now, chosen)

    def _begin(self, now: float, replica: _Replica) -> None:
        done = replica.begin(now)
        if done is not None:
            heapq.heappush(self._events, (done, next(self._order), replica))

    def _end(self, now: float, replica: _Replica | None) -> None:
        if replica is None:
            self._starting -= 1
            self._active.append(self._replica())
            return
        for request in replica.end():
            self._latencies[request] = now - self._arrivals[request]
        self._begin(now, replica)

    def _control(self, now: float) -> None:
        """Starts and retires replicas; one that is retired takes nothing more and finishes what it has."""
        policy = self._autoscaling
        assert policy is not None
        there = len(self._active) + self._starting
        self._replica_seconds += there * _CONTROL_SECONDS
        wanted = math.ceil(sum(replica.ongoing for replica in self._active) / policy.ongoing)
        wanted = min(max(wanted, policy.least), policy.most)
        direction = (wanted > there) - (wanted < there)
        if direction != self._since[0]:
            self._since = direction, now
        held = now - self._since[1]
        if direction > 0 and held >= policy.up_seconds:
            self._starting += wanted - there
            for _ in range(wanted - there):
                heapq.heappush(self._events, (now + policy.start_seconds, next(self._order), None))
        elif direction < 0 and held >= policy.down_seconds and not self._starting:
            del self._active[wanted:]
