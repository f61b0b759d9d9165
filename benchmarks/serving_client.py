"""Requests to a server over loopback: at times planned beforehand (open loop), or one after the other (closed loop).

In an open loop a request leaves at its planned time whatever became of those before it, and its latency counts from
that time and not from when it left. A client that waited for answers would send less just when the server is slow, and
count none of the waiting ("coordinated omission": G. Tene, How NOT to Measure Latency, 2013).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np
from numpy.typing import NDArray

from sait_deploy.serving.json_form import HEADER_LENGTH
from sait_deploy.system.processors import processors

OK: Final = 200
NO_ANSWER: Final = 0
"""The status of a request whose connection ended without an answer, or that was given up."""

_GIVE_UP_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """A model of a server.

    Attributes:
        address: of the server, such as ``http://127.0.0.1:8000``.
        model: name.
        forced: whether requests say how many tokens to keep, as adaptive artifacts let them.
    """

    address: str
    model: str
    forced: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request; times are seconds since the first was planned.

    Attributes:
        planned: when it was to leave.
        left: when it left.
        done: when its answer was there.
        status: of HTTP, or ``NO_ANSWER``.
        right: whether the answer is to this request: its number, and the tokens that it asked for.
        point: that the answer names; empty for no answer.
    """

    planned: float
    left: float
    done: float
    status: int
    right: bool = True
    point: str = ""

    @property
    def latency(self) -> float:
        """Seconds from the planned time to the answer."""
        return self.done - self.planned


@dataclass(frozen=True, slots=True)
class Load:
    """Requests and what they cost the client.

    Attributes:
        outcomes: one for each request, in the order in which they were planned.
        seconds: from the first planned time to the last answer.
        client_share: of the machine's processors that the client took.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float
    client_share: float


def poisson_times(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Returns the times of arrivals at a mean rate, independent of each other, float64 [n], ascending."""
    draws = np.random.default_rng(seed)
    gaps = draws.exponential(1 / rate, int(rate * seconds * 2) + 50)
    times = np.cumsum(gaps)
    return times[times < seconds]


class Client:
    """Asks one target for images, each with the next of the given counts.

    Args:
        target: what to ask.
        images: float32 [n, C, H, W], preprocessed, which take turns.
        counts: patch tokens to keep, which take turns; not read where the target is not forced.
        batch: images of a request.
    """

    def __init__(self, target: Target, images: NDArray[np.float32], counts: NDArray[np.int64], batch: int = 1) -> None:
        self._target, self._counts, self._batch = target, counts, batch
        turns = [np.take(images, range(i, i + batch), axis=0, mode="wrap") for i in range(len(images))]
        self._images = [turn.tobytes() for turn in turns]
        self._shape = list(turns[0].shape)
        self._url = f"{target.address}/v2/models/{target.model}/infer"
        self._numbers = itertools.count()

    async def open_loop(self, times: Sequence[float] | NDArray[np.float64]) -> Load:
        """Sends a request at each of the times, seconds from now on."""
        async with self._session() as session:
            before, started = time.process_time(), time.monotonic()

            async def at(planned: float) -> Outcome:
                await asyncio.sleep(max(0.0, started + planned - time.monotonic()))
                return await self._ask(session, started, planned)

            outcomes = await asyncio.gather(*(at(float(planned)) for planned in times))
            return _load(outcomes, before, started)

    async def closed_loop(self, clients: int, seconds: float) -> Load:
        """Keeps so many requests on their way for some seconds."""
        async with self._session() as session:
            before, started = time.process_time(), time.monotonic()

            async def one() -> list[Outcome]:
                found = []
                while (now := time.monotonic() - started) < seconds:
                    found.append(await self._ask(session, started, now))
                return found

            found = await asyncio.gather(*(one() for _ in range(clients)))
            return _load(list(itertools.chain.from_iterable(found)), before, started)

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=_GIVE_UP_SECONDS)
        return aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)

    async def _ask(self, session: aiohttp.ClientSession, started: float, planned: float) -> Outcome:
        number = next(self._numbers)
        body, length, kept = self._body(number)
        left = time.monotonic() - started
        try:
            async with session.post(self._url, data=body, headers={HEADER_LENGTH: str(length)}) as answer:
                content = await answer.read()
                status, header = answer.status, answer.headers.get(HEADER_LENGTH)
        except (aiohttp.ClientError, TimeoutError):
            return Outcome(planned, left, time.monotonic() - started, NO_ANSWER)
        done = time.monotonic() - started
        if status != OK:
            return Outcome(planned, left, done, status, "error" in json.loads(content))
        document = json.loads(content if header is None else content[: int(header)])
        right = document["id"] == str(number) and _is_of(document, content, kept)
        return Outcome(planned, left, done, status, right, document["parameters"]["point"])

    def _body(self, number: int) -> tuple[bytes, int, NDArray[np.int32] | None]:
        """Returns a request's body, how long its document is, and the tokens that it asks to keep."""
        image = self._images[number % len(self._images)]
        inputs = [_described("images", "FP32", self._shape, len(image))]
        binary, kept = [image], None
        if self._target.forced:
            first = number * self._batch
            kept = np.take(self._counts, range(first, first + self._batch), mode="wrap").astype(np.int32)
            mass, limits = np.ones(self._batch, np.float32), np.stack([kept, kept], axis=1)
            inputs.append(_described("mass", "FP32", [self._batch], mass.nbytes))
            inputs.append(_described("keep_limits", "INT32", [self._batch, 2], limits.nbytes))
            binary += [mass.tobytes(), limits.tobytes()]
        document = {"id": str(number), "parameters": {"binary_data_output": True}, "inputs": inputs}
        text = json.dumps(document).encode()
        return b"".join([text, *binary]), len(text), kept


def _described(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def _is_of(document: dict[str, Any], content: bytes, kept: NDArray[np.int32] | None) -> bool:
    """Whether an answer, whose tensors end its content, kept what was asked for."""
    if kept is None:
        return True
    last = document["outputs"][-1]
    assert last["name"] == "kept"
    return np.array_equal(np.frombuffer(content[-kept.nbytes :], np.int32), kept)


def _load(outcomes: Sequence[Outcome], before: float, started: float) -> Load:
    seconds = time.monotonic() - started
    share = (time.process_time() - before) / (seconds * processors())
    return Load(tuple(sorted(outcomes, key=lambda outcome: outcome.planned)), seconds, share)


def warm(clients: Sequence[Client], seconds: float, report: Callable[[str], None]) -> None:
    """Asks each client's target for a while, so that what a server makes once is made."""
    for client in clients:
        load = asyncio.run(client.closed_loop(8, seconds))
        wrong = [outcome.status for outcome in load.outcomes if outcome.status != OK or not outcome.right]
        if wrong:
            report(f"{len(wrong)} of {len(load.outcomes)} requests of the warm-up were not answered: {set(wrong)}")
