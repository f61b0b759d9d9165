"""gRPC in the command's own process: Serve's proxy for gRPC listens on every address of a machine and knows no TLS."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from sait_deploy.serving.grpc_messages import METHODS, SERVICE

if TYPE_CHECKING:
    from sait_deploy.serving.listening import Listening

_START_SECONDS: Final = 30
_MESSAGE_OVERHEAD: Final = 1 << 20


class GrpcFront:
    """Passes calls on to the replicas, as bytes, from a thread with an event loop of its own.

    Args:
        handle: of the deployment.
        listening: where to listen.
        max_message: bytes of a request at most.
    """

    def __init__(self, handle: Any, listening: Listening, max_message: int) -> None:
        self._handle, self._listening, self._max_message = handle, listening, max_message + _MESSAGE_OVERHEAD
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpc", daemon=True)
        self._thread.start()
        self._server: Any = self._wait(asyncio.run_coroutine_threadsafe(self._start(), self._loop))

    @staticmethod
    def _wait(future: Future[Any]) -> Any:
        return future.result(_START_SECONDS)

    async def _start(self) -> Any:
        import grpc

        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", self._max_message), ("grpc.so_reuseport", 0)]
        )
        handlers = {name: grpc.unary_unary_rpc_method_handler(self._method(name)) for name in METHODS}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        address = f"{self._listening.bracketed}:{self._listening.grpc_port}"
        if self._listening.certificate is None or self._listening.key is None:
            server.add_insecure_port(address)
        else:
            pair = self._listening.key.read_bytes(), self._listening.certificate.read_bytes()
            server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        await server.start()
        return server

    def _method(self, name: str) -> Any:
        async def method(request: bytes, context: Any) -> bytes:
            import grpc

            from sait_deploy.serving.grpc_form import OK

            metadata = dict(context.invocation_metadata())
            try:
                reply = await self._handle.call.remote(name, request, metadata.get("authorization"))
            except Exception as error:  # a replica that ended, or is not there yet
                what = f"no replica answered: {type(error).__name__}"
                await context.abort(grpc.StatusCode.UNAVAILABLE, what)
            if reply.code != OK:
                await context.abort(grpc.StatusCode[reply.code], reply.detail)
            message: bytes = reply.message
            return message

        return method

    def stop(self, seconds: float) -> None:
        """Takes no more calls, waits for those that are being answered, and ends the thread."""
        asyncio.run_coroutine_threadsafe(self._server.stop(seconds), self._loop).result(seconds + _START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)
