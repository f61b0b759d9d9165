"""A job on small images, begun and computed in this process, and what its folder holds."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.batch.options import BatchOptions
from sait_deploy.batch.place import open_place
from sait_deploy.batch.record import Job, begun_record, opened_job, wanted_record
from sait_deploy.batch.worker import ShardComputer

BROKEN = "3/broken.png"


def images_in(folder: Path) -> Path:
    """Copies 40 digits in folders of their classes, and a file that is no image."""
    shutil.copytree(demo.IMAGES, folder, ignore=shutil.ignore_patterns("*.md"))
    (folder / BROKEN).write_bytes(b"no image")
    return folder


def begun(options: BatchOptions, artifact: Artifact) -> Job:
    """Begins a job, or goes on with it."""
    wanted = wanted_record(options, artifact)
    source, output = open_place(options.source), open_place(options.output)
    begun_record(output, wanted)
    with opened_job(options, source, output, wanted) as job:
        return job


def computed(options: BatchOptions) -> Job:
    """Computes what is pending of a job, without Ray."""
    artifact = open_artifact(options.artifact)
    job = begun(options, artifact)
    computer = ShardComputer(options, artifact.manifest.id)
    for number, place in job.pending:
        computer.compute(number, place)
    return job


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns each image's row, read by pandas as a user would; every image is there once."""
    import pandas

    table = pandas.read_parquet(folder)
    assert max(Counter(table["image"]).values()) == 1
    found: dict[str, dict[str, Any]] = {row["image"]: row for row in json.loads(table.to_json(orient="records"))}
    return found
