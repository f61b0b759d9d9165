"""What Ray Serve runs: a process with all artifacts, asked over HTTP through Serve's proxy and over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sait_deploy.engine.trust import Consent
from sait_deploy.errors import InvalidArgument
from sait_deploy.serving import one_call
from sait_deploy.serving.confinement import confine_replica
from sait_deploy.serving.grpc_form import OK, Reply, call
from sait_deploy.serving.grpc_messages import METHODS, SERVICE
from sait_deploy.serving.metrics import RayMetrics, exported_metrics
from sait_deploy.serving.names import DEPLOYMENT
from sait_deploy.serving.options import ModelsOptions
from sait_deploy.serving.server import Server, open_server
from sait_deploy.serving.token import read_token

_BUILD_THERE: Final = "build the engines on the machines of the cluster: sait-deploy build-engine"
_DRAIN_SECONDS: Final = 5.0
"""What a replica that stops has in addition to the time limit of a request."""

_QUEUES: Final = 4
"""Requests that reach a replica at once, in queues of its images: those that find its queue full are refused there."""


class Models:
    """The servable class.

    Args:
        options: what to run.
        token_file: where the bearer token stands; None for none.
        loopback: whether nothing of the replica may be reached from other machines.
    """

    def __init__(self, options: ModelsOptions, token_file: str | None, loopback: bool) -> None:
        if loopback:
            confine_replica()
        self.server = open_server(options, RayMetrics(), read_token(None if token_file is None else Path(token_file)))

    async def call(self, method: str, request: bytes, authorization: str | None) -> Reply:
        """Answers a call of the protocol's gRPC service, its messages as bytes."""
        return await call(self.server, method, request, authorization)

    async def whole(self, scope: dict[str, Any], body: bytes) -> one_call.Reply:
        """Answers a whole request over HTTP, as the application does that ``serve.ingress`` gives this class."""
        app: Any = self.app  # type: ignore[attr-defined]
        return await one_call.reply(app, scope, body, self.server.options.time_limit_s)


class _Encoded:
    """A response that is bytes already, as Serve's gRPC proxy asks for a message."""

    def __init__(self, message: bytes) -> None:
        self._message = message

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        return self._message


def _method(name: str) -> Callable[..., Any]:
    async def method(self: Models, request: bytes, grpc_context: Any) -> _Encoded:
        from grpc import StatusCode

        metadata = {key.lower(): value for key, value in grpc_context.invocation_metadata()}
        reply = await self.call(name, request, metadata.get("authorization"))
        if reply.code != OK:
            grpc_context.set_code(StatusCode[reply.code])
            grpc_context.set_details(reply.detail)
        return _Encoded(reply.message)

    return method


for _name in METHODS:
    setattr(Models, _name, _method(_name))


def add_service(_: Any, server: Any) -> None:
    """Adds the protocol's service to Serve's gRPC proxy, which calls a deployment's methods by the same names.

    Messages pass as bytes, so that the proxy needs not know them.
    """
    import grpc

    handlers = {name: grpc.unary_unary_rpc_method_handler(None) for name in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def quiet() -> Any:
    """Returns how Serve's processes log: errors alone, which reach the command's own stderr."""
    from ray.serve.schema import LoggingConfig

    return LoggingConfig(log_level="ERROR", enable_access_log=False)


def application(
    options: ModelsOptions, token_file: Path | None, replicas: int, loopback: bool, processors_of_each: float
) -> Any:
    """Returns the application for ``serve.run``.

    Args:
        options: what each replica runs.
        token_file: where the bearer token stands on each machine.
        replicas: how many.
        loopback: whether nothing may be reached from other machines.
        processors_of_each: that Ray reserves.
    """
    from ray import serve

    def build() -> Any:
        from sait_deploy.serving.web import make_app

        def server_of() -> Server:
            server: Server = serve.get_replica_context().servable_object.server
            return server

        return make_app(server_of, exported_metrics)

    deployment = serve.deployment(
        serve.ingress(build)(Models),
        name=DEPLOYMENT,
        num_replicas=replicas,
        max_ongoing_requests=_QUEUES * options.queue,
        graceful_shutdown_timeout_s=options.time_limit_s + _DRAIN_SECONDS,
        graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={"num_cpus": processors_of_each},
        logging_config=quiet(),
    )
    return deployment.bind(options, None if token_file is None else str(token_file), loopback)


def build_application(arguments: dict[str, Any]) -> Any:
    """Returns the application for ``serve deploy``, from the arguments of its configuration.

    Raises:
        InvalidArgument: a value that cannot be, or consent to engines, which a user gives and no file.
    """
    given = dict(arguments)
    if "consent" in given:
        raise InvalidArgument("a configuration cannot consent to engines that others built", _BUILD_THERE)
    token_file = given.pop("token_file", None)
    given["artifacts"] = tuple(Path(path) for path in given["artifacts"])
    options = ModelsOptions(**given)
    return application(options, None if token_file is None else Path(token_file), 1, False, options.threads or 1)


def arguments_of(options: ModelsOptions, token_file: Path | None) -> dict[str, Any]:
    """Returns the arguments from which ``build_application`` makes the same.

    Raises:
        InvalidArgument: the options consent to engines, which arguments in a file cannot.
    """
    if options.consent not in (None, Consent()):
        raise InvalidArgument("a configuration cannot consent to engines that others built", _BUILD_THERE)
    plain = {name: value for name, value in asdict(options).items() if value not in (None, ()) and name != "consent"}
    plain["artifacts"] = [str(path) for path in options.artifacts]
    if options.points:
        plain["points"] = list(options.points)
    if options.precision is not None:
        plain["precision"] = options.precision.value
    return plain | ({} if token_file is None else {"token_file": str(token_file)})
