"""What Ray Data runs: a process with the artifact, which computes shards and writes each to its file."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final

from sait_deploy import errors
from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.batch.options import BatchOptions
from sait_deploy.batch.packing import packed_answers
from sait_deploy.batch.place import open_place
from sait_deploy.batch.reading import read_images
from sait_deploy.batch.record import part_name, point_of_all, read_shard
from sait_deploy.batch.rows import Counts, Found, read_counts, write_rows
from sait_deploy.errors import ArtifactError, SaitError, ServingError, first_line
from sait_deploy.runtime.choose import artifact_for
from sait_deploy.serving.stages import ImagePoint, Prepared, open_stages

_READERS: Final = 4
"""Threads that read and decode: the wait for a remote file is longer than its decoding."""

_AGAIN: Final = "run the command again, which goes on where it stopped; if it fails again, please report it"


class ShardComputer:
    """Computes shards of one job.

    Args:
        options: the job, with places and the artifact as every machine knows them.
        artifact: id of the artifact that the job began with.

    Raises:
        SaitError: the artifact cannot be loaded, or is another.
    """

    def __init__(self, options: BatchOptions, artifact: str) -> None:
        found = artifact_for(open_artifact(options.artifact), options.runtime, options.precision)
        if found.manifest.id != artifact:
            raise ArtifactError(
                f"{options.artifact} is {found.manifest.id} on this machine, and the job's is {artifact}",
                "put the same artifact on every machine",
            )
        self._options, self._manifest = options, found.manifest
        point = point_of_all(found.manifest, options.choice)
        self._point = None if point is None else ImagePoint(*point)
        self._stages = open_stages(found, options.runtime, options.run_options)
        self._source, self._output = open_place(options.source), open_place(options.output)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")

    def compute(self, number: int, place: int) -> Counts:
        """Computes the shard that stands at a place in the list, and writes its file, unless that is there.

        Raises:
            SaitError: the runtime cannot run, a Parquet file cannot be read, or nothing can be written.
        """
        if self._output.exists(part_name(number)):  # of a process that ended before it could say so
            return read_counts(self._output, number)
        shard, broken = read_shard(self._output, place), dict[int, Found]()
        options, tokens = self._options, self._manifest.model.geometry.tokens
        budget = options.batch * tokens if options.token_budget is None else options.token_budget

        def prepared() -> Iterator[tuple[int, Prepared]]:
            read = read_images(self._source, shard, self._manifest.preprocessing, self._readers, 2 * options.batch)
            for index, image in enumerate(read):
                if isinstance(image, SaitError):
                    broken[index] = image
                else:
                    yield index, Prepared(image, self.point_of(index))

        found = dict(packed_answers(self._stages, prepared(), options.batch, budget))
        return write_rows(self._output, number, self._manifest, options.top, shard.names(), found | broken)

    def point_of(self, index: int) -> ImagePoint | None:
        """Returns the operating point of a shard's image; None for an artifact whose point is fixed."""
        return self._point


class ShardActor:
    """The callable class of Ray Data: its errors are values, as Ray keeps no more of one than its text."""

    def __init__(self, options: BatchOptions, artifact: str) -> None:
        self._options, self._artifact = options, artifact
        self._computer: ShardComputer | None = None
        self._process = f"{socket.gethostname()}:{os.getpid()}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Computes the shards of a batch of Ray's, columns ``number`` and ``place``; returns what each holds."""
        shards = zip(batch["number"].tolist(), batch["place"].tolist(), strict=True)
        rows = [self._row(number, place) for number, place in shards]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _row(self, number: int, place: int) -> dict[str, Any]:
        counts, failure = Counts(0, 0, 0), ""
        try:
            if self._computer is None:
                self._computer = ShardComputer(self._options, self._artifact)
            counts = self._computer.compute(number, place)
        except SaitError as error:
            failure = json.dumps([type(error).__name__, error.message, error.hint])
        except Exception as error:  # what nobody foresaw: of this, too, Ray would keep a traceback's text
            what = f"a shard cannot be computed: {type(error).__name__}: {first_line(error)}"
            failure = json.dumps([ServingError.__name__, what, _AGAIN])
        return {"number": number, "process": self._process, "failure": failure, **asdict(counts)}


def counts_in(row: dict[str, Any]) -> Counts:
    """Returns what a row of the actor's says.

    Raises:
        SaitError: what the actor could not do.
    """
    if not row["failure"]:
        return Counts(row["images"], row["broken"], row["kept"])
    name, message, hint = json.loads(row["failure"])
    kind = getattr(errors, name, SaitError)
    error = kind.__new__(kind)
    SaitError.__init__(error, message, hint)
    raise error
