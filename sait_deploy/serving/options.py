"""What a server serves, and how: checked once, for the command line, Python and a cluster's configuration alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sait_deploy.engine.trust import Consent
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime.options import RunOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, ONNXRUNTIME
from sait_deploy.system.option_values import check_options

_MEBIBYTE: Final = 1 << 20
_MOST_REPLICAS: Final = 1000


def check_replicas(replicas: int) -> None:
    """Checks a number of processes that each run all of it.

    Raises:
        InvalidArgument: there cannot be so many.
    """
    if not 1 <= replicas <= _MOST_REPLICAS:
        raise InvalidArgument(f"there cannot be {replicas} replicas", f"use 1 to {_MOST_REPLICAS}")


@dataclass(frozen=True, slots=True)
class ModelsOptions:
    """What each replica of a server runs.

    Attributes:
        artifacts: folders of artifacts, each served under its folder's name.
        runtime: what runs them.
        precision: what to compute in; None for what an artifact is made for.
        device: where torch or OpenVINO runs.
        threads: of each operator; None for the processors divided by the replicas of this machine.
        point: of requests that name none; None for an artifact's first.
        points: from dear to cheap, among which the load chooses for requests that name none; none to always give
            ``point``.
        target_p99_ms: latency that the load-aware choice keeps, milliseconds.
        degrade: whether ``points`` may hold some that no tuning has held to a limit.
        token_budget: tokens of a batch after the seam at most; None for those of eight whole images.
        batch_images: images of a batch at most; None for as many as the token budget allows.
        queue: images that may wait; further requests are refused.
        time_limit_s: seconds after which a request is given up.
        max_body_mib: size of a request at most, MiB.
        consent: to engines that this user did not build; None for none. A configuration of a cluster cannot give it.

    Raises:
        InvalidArgument: a value that cannot be.
    """

    artifacts: tuple[Path, ...]
    runtime: str = ONNXRUNTIME
    precision: RunPrecision | None = None
    device: str = DEFAULT_DEVICE
    threads: int | None = None
    point: str | None = None
    points: tuple[str, ...] = ()
    target_p99_ms: float = 500.0
    degrade: bool = False
    token_budget: int | None = None
    batch_images: int | None = None
    queue: int = 256
    time_limit_s: float = 30.0
    max_body_mib: int = 64
    consent: Consent | None = None

    def __post_init__(self) -> None:
        check_options(self)
        if not self.artifacts:
            raise InvalidArgument(
                "there is no artifact to serve", "name one, or export one: sait-deploy export --mass 0.9"
            )
        names = [path.resolve().name for path in self.artifacts]
        for name in names:
            if names.count(name) > 1:
                raise InvalidArgument(f"two artifacts are called {name!r}", "rename the folder of one")
        for what, value in (
            ("target", self.target_p99_ms),
            ("token budget", 1 if self.token_budget is None else self.token_budget),
            ("number of images in a batch", 1 if self.batch_images is None else self.batch_images),
            ("queue", self.queue),
            ("time limit", self.time_limit_s),
            ("size of a request", self.max_body_mib),
        ):
            if not 0 < value < float("inf"):
                raise InvalidArgument(f"the {what} cannot be {value:g}", "give a number above 0")
        if self.points and self.point is not None:
            raise InvalidArgument("a point and points that follow the load exclude each other", "give one of them")
        if len(self.points) == 1 or len(set(self.points)) != len(self.points):
            raise InvalidArgument(
                f"the load cannot choose among {', '.join(self.points)}", "name two different points or more"
            )
        self.run_options  # noqa: B018 - checks threads

    @property
    def run_options(self) -> RunOptions:
        """How a runner runs."""
        return RunOptions(self.threads, None, self.device, self.precision, self.consent)

    @property
    def max_body(self) -> int:
        """Size of a request at most, bytes."""
        return self.max_body_mib * _MEBIBYTE
