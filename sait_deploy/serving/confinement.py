"""What a Ray of its own is told: to stay on loopback, to leave processors to the replicas, and signals to the command.

Ray has settings for most of what it opens or asks elsewhere. Three places have none, and are replaced in the process
that they run in; tests list every socket and every look-up, and send SIGTERM where Ray ends, so that another version of
Ray that does it elsewhere is noticed.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

from sait_deploy.errors import ServingError
from sait_deploy.system.interrupts import sigterm_kept

ENVIRONMENT: Final = {
    # Ray reports its use to a server on the internet otherwise.
    "RAY_USAGE_STATS_ENABLED": "0",
    # A Ray that no other machine joins takes 127.0.0.1 for its address, and its processes listen there.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_metrics_report_interval_ms": "2000",
    # Ray runs its workers at niceness 15: whatever else runs on the machine would take processors from the replicas.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Bodies of requests go from process to process in the call itself, not by way of shared memory and its keeper.
    "RAY_max_direct_call_object_size": str(8 << 20),
    # Serve's controller looks after its replicas ten times a second otherwise, on the processors that they compute on.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Serve's proxy would answer in plain text where a replica ends, and 404 while the server does.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "sait_deploy.serving.http_front:middlewares",
}
"""What every process of Ray is told, unless the user says otherwise."""


def confine_start() -> None:
    """Prepares this process to start Ray, which must not be imported yet.

    Ray starts a process for its dashboard even without one, and that asks by the addresses of three clouds in which of
    them it runs.

    Raises:
        ServingError: this version of Ray starts it in another way.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    services = _module("ray._private.services", "start_api_server")
    services.start_api_server = lambda *_, **__: ("", None)


def keep_signals() -> None:
    """Takes SIGTERM on as before: Ray's core, in C++, puts an action of its own there, which ends the process at once.

    Ray's handlers in Python are never put there. Another version of Ray, of a cluster that is joined, may have no such
    places.
    """
    utilities: Any = importlib.import_module("ray._private.utils")
    utilities.set_sigterm_handler = lambda _: None
    raylet: Any = importlib.import_module("ray._raylet")
    original = getattr(raylet, "CoreWorker", None)
    if not hasattr(original, "shutdown_driver") or hasattr(original, "signals_kept"):
        return

    class CoreWorker(original):  # type: ignore[misc, valid-type]
        signals_kept = True

        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            with sigterm_kept():
                return super().__new__(cls, *arguments, **named)

        def shutdown_driver(self) -> None:
            with sigterm_kept():
                super().shutdown_driver()

    raylet.CoreWorker = CoreWorker


def confine_replica() -> None:
    """Keeps the port at which other replicas could reach this process on loopback.

    Raises:
        ServingError: this version of Ray Serve opens that port in another way.
    """
    replica = _module("ray.serve._private.replica", "add_port_to_grpc_server")
    original = replica.add_port_to_grpc_server

    def add_port(server: Any, address: str) -> Any:
        return original(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = add_port


def _module(name: str, function: str) -> Any:
    try:
        module = importlib.import_module(name)
        getattr(module, function)
    except (ModuleNotFoundError, AttributeError):
        raise ServingError(
            "this version of Ray cannot be kept on loopback", "install ray[serve]==2.60.*, or join a cluster: --address"
        ) from None
    return module
