"""Sends hostile requests to a server, one by one beside right ones, and judges what comes back.

    python -m tests.hostile.asking WORLD < names > verdicts

A name of a request stands on each line of the input, and on each of the output a verdict as JSON; without a name, all
are sent. The server runs in this process without Ray: what answers in a replica.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import socket
import sys
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final

import numpy as np

from sait_deploy.serving.grpc_messages import SERVICE, messages
from sait_deploy.serving.options import ModelsOptions
from tests.hostile import asked_grpc, asked_http
from tests.hostile.asked import Asked, Transport, right_document
from tests.hostile.case import Verdict
from tests.hostile.judge import BYTES, SECONDS, Outcome
from tests.hostile.world import ADAPTIVE
from tests.serving.served import served, served_by_grpc

KIND: Final = "request"
_TIME_LIMIT: Final = 2.0
_QUIET: Final = 4.0
"""Seconds after which a client that got no answer ends its side: more than the server gives a request."""

_FAILED: Final = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "CANCELLED"})


def _kibibytes(name: str) -> int:
    """Returns a number of this process's memory: what is there (VmRSS), or the most since it was last set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def all_requests() -> tuple[Asked, ...]:
    """Returns every request; names are unique."""
    made = (*asked_http.requests(), *asked_grpc.requests())
    assert len({one.name for one in made}) == len(made)
    return made


@dataclasses.dataclass(frozen=True)
class _Reply:
    """What came back: whether it is an answer, a refusal or a failure, in words, and what a client shows of it."""

    verdict: Verdict
    code: int
    shown: str


class _Errors(logging.Handler):
    """Keeps what the server logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Asking:
    """A server that is asked.

    Args:
        address: of HTTP.
        grpc_address: of gRPC.
    """

    def __init__(self, address: str, grpc_address: str) -> None:
        import grpc

        self._address = address
        self._channel = grpc.insecure_channel(grpc_address)
        self._errors = _Errors()
        logging.getLogger().addHandler(self._errors)
        self._pool = ThreadPoolExecutor(1)
        self._right = {
            Transport.HTTP: asked_http.posted("/v2/models/adaptive/infer", json.dumps(right_document()).encode()),
            Transport.GRPC: asked_grpc.right_call().SerializeToString(),
        }
        self._wanted = {transport: self._numbers(transport) for transport in Transport}

    def judge(self, one: Asked) -> Outcome:
        """Sends a request beside a right one of the same transport, and says what came of both."""
        self._errors.lines.clear()
        # What others did in this process before is not the request's.
        Path("/proc/self/clear_refs").write_text("5")
        before = _kibibytes("VmRSS")
        beside = self._pool.submit(self._numbers, one.transport)
        started = time.monotonic()
        reply = self._http(one.sent) if one.transport is Transport.HTTP else self._grpc(one)
        seconds = time.monotonic() - started
        used = _kibibytes("VmHWM") - before
        verdict, said = reply.verdict, reply.shown.splitlines()[-1] if reply.shown.splitlines() else ""
        if self._errors.lines:
            verdict, said = Verdict.UNEXPECTED, self._errors.lines[-1]
        elif not _close(beside.result(), self._wanted[one.transport]):
            verdict = Verdict.HARMED
        elif seconds >= SECONDS:
            verdict = Verdict.HUNG
        elif used << 10 > BYTES:
            verdict = Verdict.LARGE
        elif verdict is Verdict.REFUSED and any(
            unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" for c in reply.shown
        ):
            verdict = Verdict.ESCAPED
        return Outcome(one.name, KIND, verdict, reply.code, round(seconds, 2), used >> 10, said[:200])

    def _numbers(self, transport: Transport) -> list[float]:
        """Returns the logits of a right request; none where it is not answered."""
        import grpc

        if transport is Transport.HTTP:
            found = self._http(self._right[transport])
            answered = found.verdict is Verdict.ANSWERED
            return list(json.loads(found.shown)["outputs"][0]["data"]) if answered else []
        try:
            reply = self._call("ModelInfer", self._right[transport])
        except grpc.RpcError:
            return []
        answer = messages()["ModelInferResponse"].FromString(reply)
        return list(np.frombuffer(answer.raw_output_contents[0], np.float32).tolist())

    def _http(self, sent: bytes) -> _Reply:
        host, port = self._address.split(":")
        with socket.create_connection((host, int(port)), timeout=_QUIET) as connection:
            with contextlib.suppress(OSError):  # the server may answer and close before it has all
                connection.sendall(sent)
            try:
                return self._read(connection)
            except TimeoutError:
                connection.settimeout(SECONDS)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            try:
                return self._read(connection)
            except TimeoutError:
                return _Reply(Verdict.HUNG, 0, "")

    @staticmethod
    def _read(connection: socket.socket) -> _Reply:
        try:
            response = HTTPResponse(connection)
            response.begin()
            body = response.read().decode("utf-8", "replace")
        except TimeoutError:
            raise
        except (HTTPException, OSError):
            return _Reply(Verdict.REFUSED, 0, "closed")
        if response.status < 400:
            return _Reply(Verdict.ANSWERED, response.status, body)
        if response.status >= 500 and response.status != 503:
            return _Reply(Verdict.UNEXPECTED, response.status, body)
        is_json = response.headers.get("content-type") == "application/json"
        return _Reply(Verdict.REFUSED, response.status, json.loads(body)["error"] if is_json else body)

    def _call(self, method: str, sent: bytes, authorization: str | None = None) -> bytes:
        metadata = () if authorization is None else (("authorization", authorization),)
        made: bytes = self._channel.unary_unary(f"/{SERVICE}/{method}")(sent, metadata=metadata, timeout=SECONDS)
        return made

    def _grpc(self, one: Asked) -> _Reply:
        import grpc

        try:
            self._call(one.method, one.sent, one.authorization)
        except grpc.RpcError as error:
            failed: Any = error
            wrong = failed.code().name in _FAILED
            return _Reply(Verdict.UNEXPECTED if wrong else Verdict.REFUSED, failed.code().value[0], failed.details())
        except ValueError as error:  # metadata that no client sends
            return _Reply(Verdict.REFUSED, 0, str(error))
        return _Reply(Verdict.ANSWERED, 0, "")


def _close(found: list[float], wanted: list[float]) -> bool:
    return len(found) == len(wanted) and np.allclose(found, wanted, rtol=1e-3, atol=1e-4)


@contextlib.contextmanager
def asking(world: Path) -> Iterator[Asking]:
    """Serves the world's adaptive artifact for as long as the block lasts."""
    options = ModelsOptions(artifacts=(world / ADAPTIVE,), threads=1, time_limit_s=_TIME_LIMIT, max_body_mib=16)
    with served(options) as running, served_by_grpc(options) as address:
        yield Asking(running.address, address)


def main(arguments: list[str]) -> int:
    """Judges the requests named on standard input, or all."""
    names = set(sys.stdin.read().split("\n")) - {""}
    with asking(Path(arguments[0])) as server:
        for one in all_requests():
            if one.name in names or not names:
                outcome = server.judge(one)
                if outcome.verdict in (Verdict.HUNG, Verdict.HARMED):  # or the machine was stopped meanwhile
                    outcome = server.judge(one)
                print(json.dumps(dataclasses.asdict(outcome)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
