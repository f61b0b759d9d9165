"""The benchmark that a recommendation needs where none is given: all runtimes and precisions that work here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from sait_deploy.artifacts.folder import Artifact, ArtifactLike
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.bench.groups import runtimes_for, with_baseline
from sait_deploy.bench.options import Also, BenchOptions
from sait_deploy.bench.results import Report
from sait_deploy.bench.run import bench
from sait_deploy.errors import InvalidArgument, first_line
from sait_deploy.recommending.results import RecommendOptions
from sait_deploy.runtime.precision import RunPrecision
from sait_deploy.runtime.registry import DEFAULT_DEVICE, RUNTIMES, is_default_device
from sait_deploy.system.progress import Progress, logged

REQUEST_BATCH = 1
"""Images of a request whose latency is limited, where no number is given."""

THROUGHPUT_BATCH = 32
"""Images of a request where only accuracy is limited, likewise."""


def check_can_be_judged(artifacts: Sequence[Artifact], options: RecommendOptions) -> None:
    """Refuses a limit on accuracy where the weights are random, before anything is measured.

    Raises:
        InvalidArgument: that is so.
    """
    if options.max_drop is not None and artifacts[0].manifest.weights.source is WeightsSource.RANDOM:
        raise InvalidArgument(
            f"a drop of at most {options.max_drop:g} points cannot be judged: the weights are random",
            "limit the latency alone",
        )


def measure_candidates(
    artifacts: ArtifactLike | Iterable[ArtifactLike],
    options: RecommendOptions = RecommendOptions(),
    measuring: BenchOptions = BenchOptions(),
    progress: Progress = logged,
) -> Report:
    """Measures artifacts on every runtime that works here, in every precision: accuracy, speed and memory.

    Example::

        report = sait_deploy.measure_candidates("artifacts/sait_demo_digits-adaptive")
        print(sait_deploy.recommend(report).message)

    Args:
        artifacts: one or several, of one model, opened, or their folders, with their dense baseline beside them.
        options: what is to be recommended.
        measuring: images, threads, device, seconds and operating points; its other parts are replaced.
        progress: reports each step as it begins.

    Raises:
        InvalidArgument: accuracy is limited where the weights are random, or as :func:`sait_deploy.bench.run.bench`.
        ImageError: an image cannot be read.
    """
    opened = with_baseline(artifacts)
    check_can_be_judged(opened, options)
    fixed = opened[0].manifest.batch
    batch = options.batch or fixed or (THROUGHPUT_BATCH if options.max_latency_ms is None else REQUEST_BATCH)
    runtimes = working_runtimes(opened, progress, measuring.device)
    asked = dataclasses.replace(
        measuring,
        batches=(batch,),
        runtimes=runtimes,
        precisions=tuple(RunPrecision),
        also=frozenset({Also.MEMORY}),
    )
    return bench(opened, asked, progress)


def working_runtimes(
    artifacts: Sequence[Artifact], progress: Progress, device: str = DEFAULT_DEVICE
) -> tuple[str, ...]:
    """Returns the runtimes that work here and can be asked for a device.

    Without engines these are all that need none, and those that there are engines of.
    """
    with_engines = runtimes_for(artifacts, ())
    found = []
    for name, runtime in RUNTIMES.items():
        if runtime.from_weights or (runtime.builder is not None and name not in with_engines):
            continue
        if not (runtime.has_devices or is_default_device(device)):
            progress(f"without {name}: it runs on one kind of device alone")
            continue
        progress(f"trying {name}")
        try:
            runtime.trial()
        except Exception as error:  # whatever a runtime raises that is not installed or broken
            progress(f"without {name}: {first_line(error)}")
        else:
            found.append(name)
    return tuple(found)
