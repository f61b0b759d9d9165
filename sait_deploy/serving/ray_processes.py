"""Ray's processes: found, started in a group and a folder of their own, and ended."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

from sait_deploy.errors import MissingDependency, ServingError, first_line
from sait_deploy.serving.confinement import confine_start, keep_signals
from sait_deploy.system.afterwards import ended_afterwards
from sait_deploy.system.interrupts import deferred, not_swallowed
from sait_deploy.system.processors import processors
from sait_deploy.system.scratch import scratch_folder, temporary_files_of_children

_OBJECT_STORE: Final = 200 << 20
"""Bytes of shared memory for what passes between Ray's processes: requests, as models stay in their replicas."""

_PROBE_SECONDS: Final = 5


def check_installed(purpose: str, package: str, *modules: str) -> None:
    """Checks that Ray and what a purpose needs of it are installed, without importing them, which takes seconds.

    Args:
        purpose: what needs them, in words.
        package: Ray with that part, as pip calls it.
        modules: what has to be there.

    Raises:
        MissingDependency: one is not.
    """
    for name in modules:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(name) is not None:
                continue
        raise MissingDependency(package, purpose, "serve")


def import_ray(own: bool) -> Any:
    """Returns the ray package.

    Args:
        own: whether it is to start a Ray of its own, which is kept on loopback.
    """
    if own:
        confine_start()
    import ray

    keep_signals()
    return ray


@contextlib.contextmanager
def connected(ray: Any, address: str | None, replicas: int, *, log_to_driver: bool = True) -> Iterator[None]:
    """Joins the cluster at an address, or starts a Ray where there is none, for as long as the block lasts.

    What Ray's other processes print reaches this one's stderr unless ``log_to_driver`` is false.

    Raises:
        ServingError: it does not start, or is not there.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder()) if address is None else None
            if folder is not None:
                stack.enter_context(ended_afterwards(folder.resolve()))
            stack.callback(_shut_down, ray)
            if folder is not None:
                with _group_of_their_own(), not_swallowed(), temporary_files_of_children(folder):
                    ray.init(
                        address="local",
                        num_cpus=max(processors(), replicas),
                        object_store_memory=_OBJECT_STORE,
                        include_dashboard=False,
                        logging_level=logging.ERROR,
                        log_to_driver=log_to_driver,
                        _temp_dir=str(folder),
                    )
            else:
                with not_swallowed():
                    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=log_to_driver)
        except Exception as error:
            if address is None:
                long = "AF_UNIX" in str(error)
                hint = "set TMPDIR to a shorter path" if long else "see whether memory and /dev/shm have room"
                raise ServingError(f"Ray did not start: {first_line(error)}", hint) from error
            hint = "check the address; a cluster that asks for a token wants RAY_AUTH_MODE=token"
            raise ServingError(f"the Ray cluster cannot be joined: {first_line(error)}", hint) from error
        yield


@contextlib.contextmanager
def _group_of_their_own() -> Iterator[None]:
    """Puts processes that the block starts into another group: Ctrl-C in a terminal goes to all of a group.

    Ray's would end before the requests that they answer.
    """
    before = os.getpgrp()
    try:
        os.setpgid(0, 0)
    except PermissionError:  # the first process of a session leads its group already
        yield
        return
    try:
        yield
    finally:
        os.setpgid(0, before)


def _shut_down(ray: Any) -> None:
    """Ends Ray, or leaves the cluster; what is interrupted here would be begun again as Python ends."""
    with deferred():
        ray.shutdown()


def is_there(ray: Any) -> bool:
    """Whether Ray still runs: a service manager may have ended all processes, and Ray waits a minute for them."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _PROBE_SECONDS):
            return True
    except OSError:
        return False
