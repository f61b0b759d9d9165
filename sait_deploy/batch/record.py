"""A job's own files beside its output: what it computes, of which images, and whether all of it is there.

Shards are listed once, and each becomes one Parquet file that is put in its place by a rename. So a shard is there once
or not at all, whoever was killed when, and whoever computed it twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Final

from sait_deploy.artifacts.codec import Codec
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Manifest
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.batch.listing import Shard, list_shards
from sait_deploy.batch.options import BatchOptions
from sait_deploy.batch.place import Place
from sait_deploy.errors import ArtifactError, ImageError, StorageError
from sait_deploy.system.locks import held
from sait_deploy.system.scratch import temporary_place

FOLDER: Final = "_job"
RECORD: Final = "_job/record.json"
SHARDS: Final = "_job/shards.jsonl"
DONE: Final = "_SUCCESS"
"""Written last, as jobs of Hadoop and Spark do; readers of Parquet pass over names that begin with an underscore."""

_SCHEMA_VERSION: Final = 1
_CODEC: Final = Codec("the job's record", "name another folder to write to", _SCHEMA_VERSION)
_ANOTHER: Final = "name another folder to write to, or give what the job began with"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What a job computes, as far as answers depend on it.

    Attributes:
        artifact: its id.
        point: mass, min_keep and max_keep of every image; None for an artifact whose point is fixed.
        runtime: what runs the artifact.
        precision: what it is asked to compute in; None for what the artifact is made for.
        top: classes of each image.
        source: the input.
        shard: images of a shard.
        image_column: of Parquet files, as asked for.
        images: of the input.
        shards: into which they are split.
        listing: SHA-256 of the list of shards.
    """

    schema_version: int
    artifact: str
    point: tuple[float, int, int] | None
    runtime: str
    precision: str | None
    top: int
    source: str
    shard: int
    image_column: str | None
    images: int = 0
    shards: int = 0
    listing: str = ""


_CALLED: Final[Mapping[str, str]] = {
    "artifact": "artifact",
    "point": "operating point",
    "runtime": "runtime",
    "precision": "precision",
    "top": "number of classes",
    "source": "input",
    "shard": "number of images of a shard",
    "image_column": "image column",
    "images": "number of images",
    "shards": "number of shards",
    "listing": "list of images",
}


@dataclass(frozen=True, slots=True)
class Job:
    """A job whose record and list of shards are written.

    Attributes:
        record: what it computes.
        done: numbers of the shards that are written.
        pending: numbers of the others, and where each stands in the list.
    """

    record: JobRecord
    done: tuple[int, ...]
    pending: tuple[tuple[int, int], ...]


def part_name(number: int) -> str:
    """Returns the name of a shard's file."""
    return f"part-{number:07d}.parquet"


def wanted_record(options: BatchOptions, artifact: Artifact) -> JobRecord:
    """Returns what the options ask for, before the input is listed.

    Raises:
        InvalidArgument: the operating point cannot be.
    """
    point = point_of_all(artifact.manifest, options.choice)
    precision = None if options.precision is None else options.precision.value
    return JobRecord(
        _SCHEMA_VERSION,
        artifact.manifest.id,
        point,
        options.runtime,
        precision,
        options.top,
        options.source,
        options.shard,
        options.image_column,
    )


def point_of_all(manifest: Manifest, choice: PointChoice) -> tuple[float, int, int] | None:
    """Returns mass, min_keep and max_keep of every image; None for an artifact whose point is fixed.

    Raises:
        InvalidArgument: the operating point cannot be.
    """
    found = resolve(manifest, 1, choice)
    if found is None:
        return None
    return float(found.mass[0]), int(found.keep_limits[0, 0]), int(found.keep_limits[0, 1])


def begun_record(output: Place, wanted: JobRecord) -> JobRecord | None:
    """Returns the record of the job that the output folder holds; None where it holds nothing.

    Raises:
        StorageError: it holds something else, or a job that computes something else.
        ArtifactError: the record cannot be read.
    """
    if output.only is not None:
        raise StorageError(f"{output.text} is a file", "name a folder that is new, empty or of the same job")
    names = output.names()
    if not output.exists(RECORD):
        others = sorted(names - {FOLDER})
        if others:
            raise StorageError(
                f"{output.text} exists and holds no job, but {others[0]}",
                "name a folder that is new, empty or of the same job",
            )
        return None
    try:
        record = _CODEC.read(JobRecord, output.read(RECORD).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the record in {output.text} cannot be read: {error}", _ANOTHER) from None
    known = dataclasses.replace(wanted, images=record.images, shards=record.shards, listing=record.listing)
    _check_same(output, record, known)
    return record


def _check_same(output: Place, record: JobRecord, wanted: JobRecord) -> None:
    for name, called in _CALLED.items():
        old, new = getattr(record, name), getattr(wanted, name)
        if old != new:
            raise StorageError(f"{output.text} holds a job of another {called}: {old}, not {new}", _ANOTHER)


@contextlib.contextmanager
def opened_job(options: BatchOptions, source: Place, output: Place, wanted: JobRecord) -> Iterator[Job]:
    """Lists the input, and yields the job, which no other call computes while the block runs.

    The list and the record of a job that begins are written under its lock; of another, the list is compared.

    Raises:
        ImageError, InvalidArgument: as ``list_shards``.
        StorageError: the input is another than the one that the job began with, another call computes it, or nothing
            can be written.
    """
    with tempfile.TemporaryFile(dir=temporary_place()) as listed:
        record = _listed(options, source, wanted, listed)
        with alone(output):
            begun = begun_record(output, wanted)
            if begun is None:
                _write(output, record, listed)
            else:
                _check_same(output, begun, record)
            names = output.names()
            shards = list(enumerate(_places(listed)))
            pending = tuple((number, place) for number, place in shards if part_name(number) not in names)
            if pending and DONE in names:  # of a job whose files somebody removed to compute them again
                output.remove(DONE)
            yield Job(record, tuple(number for number, _ in shards if part_name(number) in names), pending)


def _listed(options: BatchOptions, source: Place, wanted: JobRecord, listed: IO[bytes]) -> JobRecord:
    """Writes the list of shards, a line each, and returns the record of what it holds."""
    digest, shards, images = hashlib.sha256(), 0, 0
    for shard in list_shards(source, options.shard, options.image_column):
        line = json.dumps(dataclasses.asdict(shard)).encode() + b"\n"
        digest.update(line)
        listed.write(line)
        shards, images = shards + 1, images + shard.images
    if not images:
        raise ImageError(f"{source.text} holds no image", "its Parquet files have no rows")
    return dataclasses.replace(wanted, images=images, shards=shards, listing=digest.hexdigest())


def _write(output: Place, record: JobRecord, listed: IO[bytes]) -> None:
    listed.seek(0)
    with output.writing(SHARDS) as file:
        shutil.copyfileobj(listed, file)
    output.write(RECORD, json.dumps(dataclasses.asdict(record), indent=1).encode())


def _places(listed: IO[bytes]) -> Iterator[int]:
    """Yields where each line of the list begins."""
    place = 0
    listed.seek(0)
    for line in listed:
        yield place
        place += len(line)


def read_shard(output: Place, place: int) -> Shard:
    """Returns the shard that stands at a place in the list."""
    with output.open(SHARDS) as file:
        file.seek(place)
        said = json.loads(file.readline())  # by Python's reader: names in another encoding are no text to pydantic
    return Shard(**said | {"files": tuple(said["files"]), "row_groups": tuple(said["row_groups"])})


@contextlib.contextmanager
def alone(output: Place) -> Iterator[None]:
    """Refuses a second job in the same folder at the same time, as far as its file system has locks.

    The folder is made, and what a kill left half written in it is removed.

    Raises:
        StorageError: there is one, or the folder cannot be written to.
    """
    if not output.is_local:
        yield
        return
    output.make(FOLDER)
    with held(output.path(FOLDER)) as free:
        if not free:
            raise StorageError(f"another job is writing to {output.text}", "wait for it, or name another folder")
        for swept in ("", FOLDER):
            output.sweep(swept)
        yield
