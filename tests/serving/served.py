"""A server over HTTP without Ray: the application on uvicorn, in a thread, on a port of loopback."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sait_deploy.serving.batching import Stage
from sait_deploy.serving.listening import Listening
from sait_deploy.serving.model import Answer, NoObserver
from sait_deploy.serving.options import ModelsOptions
from sait_deploy.serving.refusals import Status
from sait_deploy.serving.server import Server, open_server
from tests.serving.started import free_ports


@dataclass
class Recorded:
    """An observer that keeps what it is told."""

    batches: list[tuple[Stage, int, int]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    refusals: list[Status] = field(default_factory=list)
    waiting: int = 0

    def queued(self, model: str, images: int, wait: float) -> None:
        assert images >= 0 and wait >= 0
        self.waiting = images

    def computed(self, model: str, batch: Stage, images: int, tokens: int, seconds: float) -> None:
        self.batches.append((batch, images, tokens))

    def answered(self, model: str, answer: Answer, seconds: float) -> None:
        self.answers.append(answer)

    def refused(self, status: Status) -> None:
        self.refusals.append(status)


@dataclass(frozen=True)
class Served:
    """A server that answers at ``address``, such as 127.0.0.1:40000."""

    address: str
    server: Server
    seen: Recorded


@contextlib.contextmanager
def served(options: ModelsOptions, token: str | None = None) -> Iterator[Served]:
    """Serves until the block ends."""
    import uvicorn

    from sait_deploy.serving.web import make_app

    seen = Recorded()
    server = open_server(options, seen, token)

    async def metrics() -> str:
        return "# nothing\n"

    app: Any = make_app(lambda: server, metrics)
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    give_up = time.monotonic() + 20
    while not running.started:
        assert thread.is_alive() and time.monotonic() < give_up
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"127.0.0.1:{port}", server, seen)
    finally:
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class _Handle:
    """Stands where Serve's handle of the replicas does: calls the server in the same loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.call = self

    async def remote(self, method: str, request: bytes, authorization: str | None) -> Any:
        from sait_deploy.serving.grpc_form import call

        return await call(self._server, method, request, authorization)


@contextlib.contextmanager
def served_by_grpc(options: ModelsOptions) -> Iterator[str]:
    """Serves over gRPC through the command's front until the block ends; yields the address."""
    from sait_deploy.serving.grpc_front import GrpcFront

    port, grpc_port = free_ports()
    listening = Listening(port=port, grpc_port=grpc_port)
    front = GrpcFront(_Handle(open_server(options, NoObserver())), listening, options.max_body)
    try:
        yield f"127.0.0.1:{grpc_port}"
    finally:
        front.stop(1)
