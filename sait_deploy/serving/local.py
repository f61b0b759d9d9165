"""Running a server on a Ray of its own, on loopback, or on a cluster: from the first check to the last process."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sait_deploy.errors import ServingError, first_line
from sait_deploy.serving.grpc_front import GrpcFront
from sait_deploy.serving.listening import Listening
from sait_deploy.serving.model import NoObserver
from sait_deploy.serving.names import APPLICATION, DEPLOYMENT
from sait_deploy.serving.options import ModelsOptions, check_replicas
from sait_deploy.serving.ray_processes import check_installed, connected, import_ray, is_there
from sait_deploy.serving.replica import application, quiet
from sait_deploy.serving.server import open_server, served_name
from sait_deploy.system.interrupts import unwind
from sait_deploy.system.option_values import check_options
from sait_deploy.system.processors import processors
from sait_deploy.system.progress import Progress, logged


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """A server.

    Attributes:
        models: what each replica runs.
        listening: where it listens.
        replicas: processes that each run all artifacts.
        address: of a Ray cluster to join, such as ``auto`` or ``ray://HOST:10001``; None for a Ray of its own.

    Raises:
        InvalidArgument: a value that cannot be.
    """

    models: ModelsOptions
    listening: Listening
    replicas: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        check_options(self)
        check_replicas(self.replicas)


@contextlib.contextmanager
def serve(options: ServeOptions, progress: Progress = logged) -> Iterator[Listening]:
    """Serves until the block ends; then answers what was asked, and ends every process that it started.

    Example::

        options = ServeOptions(ModelsOptions(("artifacts/sait_demo_digits-adaptive",)), Listening(port=8000))
        with sait_deploy.serve(options) as listening:
            print(listening.url)
            wait()  # until nobody asks any more

    Raises:
        SaitError: an artifact cannot be loaded, a port is in use, or Ray is missing or does not start. All but the last
            is found before Ray starts.
    """
    options.listening.check()
    check_installed("serving", "ray[serve]", "ray", "starlette")
    _try(options, progress)
    progress("loading Ray")
    ray = import_ray(options.address is None)
    progress("starting Ray" if options.address is None else f"joining the cluster at {options.address}")
    with connected(ray, options.address, options.replicas), _served(ray, options, progress):
        yield options.listening


def wait_for_end() -> None:
    """Waits until SIGTERM or Ctrl-C."""
    unwind()  # again, as another version of Ray may have put a handler of its own there
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


def _try(options: ServeOptions, progress: Progress) -> None:
    """Opens the artifacts as a replica would, so that what is wrong with them is said at once and by its own error."""
    for path in options.models.artifacts:
        progress(f"trying {served_name(path)} on {options.models.runtime}")
    server = open_server(options.models, NoObserver())
    for model in server.models.values():
        if model.whole:
            progress(f"{model.name} is served whole, in batches of images: {model.whole}")
    del server
    gc.collect()


@contextlib.contextmanager
def _served(ray: Any, options: ServeOptions, progress: Progress) -> Iterator[None]:
    """Runs the application and the front for gRPC for as long as the block lasts."""
    from ray import serve as ray_serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    models, listening = options.models, options.listening.resolved()
    own = options.address is None
    if models.threads is None and own:
        models = replace(models, threads=max(1, processors() // options.replicas))
    models = replace(models, artifacts=tuple(path.resolve() for path in models.artifacts))
    http = listening.http_options(models.time_limit_s)
    progress(f"starting {options.replicas} replica{'s' if options.replicas > 1 else ''}")
    front = None
    try:
        try:
            ray_serve.start(proxy_location="HeadOnly", http_options=http, logging_config=quiet())
            app = application(models, listening.token_file, options.replicas, own, 0 if own else models.threads or 1)
            ray_serve.run(app, name=APPLICATION, route_prefix="/")
            handle = ray_serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
            front = GrpcFront(handle, listening, models.max_body)
        except Exception as error:
            raise ServingError(
                f"the server did not start: {first_line(error)}", "lines of Ray above may say why"
            ) from error
        yield
    finally:
        there = is_there(ray)
        progress("answering what was asked" if there else "Ray has ended already: nothing more is answered")
        if front is not None:
            front.stop(models.time_limit_s if there else 0)
        if there:
            ray_serve.delete(APPLICATION)
            if not own and not ray_serve.status().applications:
                ray_serve.shutdown()  # its proxies would keep the port
