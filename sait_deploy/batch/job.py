"""The batch stage: an input's images to Parquet files, on a Ray of its own or a cluster, resumed where it stopped."""

from __future__ import annotations

import gc
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sait_deploy.artifacts.files import check_place
from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.tower_refusal import refuse_tower
from sait_deploy.batch.options import BatchOptions
from sait_deploy.batch.place import Place, open_place
from sait_deploy.batch.record import DONE, Job, begun_record, opened_job, wanted_record
from sait_deploy.batch.rows import Counts, read_counts
from sait_deploy.batch.worker import ShardActor, counts_in
from sait_deploy.errors import ImageError, InvalidArgument, SaitError, ServingError, first_line
from sait_deploy.images.formats import readable
from sait_deploy.runtime.choose import artifact_for
from sait_deploy.serving.ray_processes import check_installed, connected, import_ray
from sait_deploy.serving.stages import open_stages
from sait_deploy.system.processors import processors
from sait_deploy.system.progress import Progress, logged

_TRIES: Final = 5
"""How often a shard is begun: its process may be ended from outside, or by the shard itself."""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What a job's folder holds in the end.

    Attributes:
        images: rows, one for each image of the input.
        broken: of them, those of images without an answer: column ``error`` says why.
        mean_kept: patch tokens that the others kept, on average.
        shards: Parquet files.
        resumed: of them, those that were there before this call.
    """

    images: int
    broken: int
    mean_kept: float
    shards: int
    resumed: int


def run_batch(options: BatchOptions, progress: Progress = logged) -> BatchSummary:
    """Labels or embeds all images of an input into Parquet files; what is there already is not computed again.

    Example::

        options = BatchOptions("photographs", "labels", Path("artifacts/sait_demo_digits-adaptive"))
        summary = sait_deploy.run_batch(options)
        print(summary.images, summary.mean_kept)

    Raises:
        ImageError: the input is not there, cannot be read, or holds no image that can be.
        InvalidArgument: an option that the artifact or the input does not allow.
        StorageError: the output is no place to write to, or holds something else than this job.
        MissingDependency: Ray is not installed.
        SaitError: the artifact cannot be loaded or run.
        ServingError: Ray does not start, or its processes end again and again.
    """
    check_installed("a batch job", "ray[data]", "ray", "pyarrow", "fsspec")
    artifact = artifact_for(open_artifact(options.artifact), options.runtime, options.precision)
    refuse_tower(artifact.manifest, "batch")
    source, output = open_place(options.source), open_place(options.output)
    _check_apart(source, output)
    if output.is_local:
        check_place(output.path(""))
    options = replace(options, source=source.address, output=output.address, artifact=options.artifact.resolve())
    wanted = wanted_record(options, artifact)
    if begun_record(output, wanted) is None:
        _try(artifact, options, progress)
    progress(f"listing {source.text}")
    with opened_job(options, source, output, wanted) as job:
        counts = Counts(0, 0, 0)
        for number in job.done:
            counts += read_counts(output, number)
        if job.done:
            progress(f"resuming: {counts.images} of {job.record.images} images are there")
        if job.pending:
            counts = _compute(options, job, counts, progress)
        output.write(DONE, json.dumps(asdict(counts)).encode())
    return _summary(source, job, counts)


def _check_apart(source: Place, output: Place) -> None:
    inside = f"{output.at('')}/".startswith(f"{source.at('')}/")
    if inside and source.only is None and type(source.files) is type(output.files):
        raise InvalidArgument(
            f"{output.text} lies in {source.text}, where images are looked for", "write to a folder beside it"
        )


def _try(artifact: Artifact, options: BatchOptions, progress: Progress) -> None:
    """Opens the artifact as a process of the job would, so that what is wrong is said before anything is written."""
    progress(f"trying {artifact.path.name} on {options.runtime}")
    stages = open_stages(artifact, options.runtime, options.run_options)
    if stages.whole:
        progress(f"{artifact.path.name} is run whole, in batches of images: {stages.whole}")
    del stages
    gc.collect()


def _compute(options: BatchOptions, job: Job, counts: Counts, progress: Progress) -> Counts:
    progress("starting Ray" if options.address is None else f"joining the cluster at {options.address}")
    own = options.address is None
    if own and options.threads is None:
        options = replace(options, threads=max(1, processors() // options.replicas))
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray Data's own actors warn of how it made them
    ray, step = import_ray(own), f"{job.record.images} images in {job.record.shards} files"
    seen: set[str] = set()
    with connected(ray, options.address, options.replicas, log_to_driver=False):
        progress(step, counts.images / job.record.images)
        for process, one in _computed(ray, options, job):
            counts, seen = counts + one, seen | {process}
            if len(seen) > options.replicas:
                progress("a process ended, and another one computes its shard again")
                seen = {process}
            progress(step, counts.images / job.record.images)
    return counts


def _computed(ray: Any, options: BatchOptions, job: Job) -> Iterator[tuple[str, Counts]]:
    """Yields which process wrote each pending shard and what it holds, as it is written."""
    from ray import data

    data.DataContext.get_current().enable_progress_bars = False
    for name in ("ray.data", "ray.anyscale"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    pending = [{"number": number, "place": place} for number, place in job.pending]
    with warnings.catch_warnings():  # Ray warns of the one way in which it takes a number of retries
        warnings.simplefilter("ignore")
        answered = data.from_items(pending, override_num_blocks=len(pending)).map_batches(
            ShardActor,
            fn_constructor_args=(options, job.record.artifact),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(options.replicas, len(pending))),
            num_cpus=1 if options.address is None else options.threads or 1,
            ray_remote_args_fn=lambda: {"max_task_retries": _TRIES - 1},
        )
    try:
        for row in answered.iter_rows():
            yield row["process"], counts_in(row)
    except SaitError:
        raise
    except Exception as error:
        raise ServingError(
            f"the job's processes ended: {first_line(error)}", "run the command again: it goes on where it stopped"
        ) from error


def _summary(source: Place, job: Job, counts: Counts) -> BatchSummary:
    if counts.broken == counts.images:
        raise ImageError(f"none of the {counts.images} images of {source.text} could be read", readable())
    kept = counts.kept / (counts.images - counts.broken)
    return BatchSummary(counts.images, counts.broken, kept, job.record.shards, len(job.done))
