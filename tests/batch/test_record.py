"""What a job's folder remembers: the same job goes on, another one is refused, and nothing is mixed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.batch.options import BatchOptions
from sait_deploy.batch.place import open_place
from sait_deploy.batch.record import DONE, RECORD, SHARDS, opened_job, read_shard, wanted_record
from sait_deploy.batch.rows import read_counts
from sait_deploy.errors import ArtifactError, InvalidArgument, SaitError, StorageError
from sait_deploy.runtime.precision import RunPrecision
from tests.batch.jobs import begun, computed, images_in
from tests.exported import TinyExport

pytest.importorskip("pyarrow", reason="jobs need Ray Data, which brings pyarrow and has no wheel here")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return images_in(tmp_path / "images")


def job_of(images: Path, artifact: Artifact, **given: Any) -> BatchOptions:
    return BatchOptions(str(images), str(images.parent / "out"), artifact.path, **{"shard": 20, "threads": 1, **given})


def refusal(options: BatchOptions, artifact: Artifact) -> SaitError:
    with pytest.raises(SaitError) as caught:
        begun(options, artifact)
    assert "\n" not in caught.value.message and caught.value.hint
    return caught.value


def test_a_job_goes_on_with_what_is_pending(tiny_adaptive: Artifact, images: Path) -> None:
    options = job_of(images, tiny_adaptive)
    first = computed(options)
    (images.parent / "out" / "part-0000001.parquet").unlink()
    again = begun(options, tiny_adaptive)
    assert (again.record, again.done) == (first.record, (0, 2))
    assert again.pending == (first.pending[1],)
    assert read_shard(open_place(options.output), again.pending[0][1]).images == 20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"choice": PointChoice("fast")}, "another operating point"),
        ({"choice": PointChoice(mass=0.7)}, "another operating point"),
        ({"runtime": "openvino"}, "another runtime: onnxruntime, not openvino"),
        ({"precision": RunPrecision.INT8}, "another precision"),
        ({"top": 1}, "another number of classes: 3, not 1"),
        ({"shard": 5}, "another number of images of a shard"),
    ],
)
def test_another_job_in_the_same_folder_is_refused(
    tiny_adaptive: Artifact, images: Path, given: dict[str, Any], said: str
) -> None:
    begun(job_of(images, tiny_adaptive), tiny_adaptive)
    error = refusal(job_of(images, tiny_adaptive, **given), tiny_adaptive)
    assert isinstance(error, StorageError) and said in error.message


def test_another_artifact_or_input_is_refused(tiny_adaptive: Artifact, tiny: TinyExport, images: Path) -> None:
    options = job_of(images, tiny_adaptive)
    begun(options, tiny_adaptive)
    assert "another artifact" in refusal(job_of(images, tiny.half), tiny.half).message
    (images / "0" / "0.png").rename(images / "0" / "renamed.png")
    assert "another list of images" in refusal(options, tiny_adaptive).message
    shutil.copy(images / "0" / "renamed.png", images / "0" / "0.png")
    assert "another number of images: 41, not 42" in refusal(options, tiny_adaptive).message
    other = images.rename(images.parent / "other")
    assert "another input" in refusal(job_of(other, tiny_adaptive), tiny_adaptive).message


def test_a_folder_of_something_else_is_left_alone(tiny_adaptive: Artifact, images: Path) -> None:
    out = images.parent / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    error = refusal(job_of(images, tiny_adaptive), tiny_adaptive)
    assert isinstance(error, StorageError) and "exists and holds no job, but notes.txt" in error.message
    assert [entry.name for entry in out.iterdir()] == ["notes.txt"]
    shutil.rmtree(out)
    out.write_text("a file")
    assert isinstance(refusal(job_of(images, tiny_adaptive), tiny_adaptive), StorageError)
    assert out.read_text() == "a file"


def test_a_job_that_ended_before_its_record_begins_anew(tiny_adaptive: Artifact, images: Path) -> None:
    options = job_of(images, tiny_adaptive)
    begun(options, tiny_adaptive)
    (images.parent / "out" / RECORD).unlink()
    assert len(begun(options, tiny_adaptive).pending) == 3


def test_an_input_that_cannot_be_leaves_no_folder(tiny_adaptive: Artifact, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refusal(BatchOptions(str(tmp_path / "empty"), str(tmp_path / "out"), tiny_adaptive.path), tiny_adaptive)
    refusal(BatchOptions(str(tmp_path / "none"), str(tmp_path / "out"), tiny_adaptive.path), tiny_adaptive)
    assert not (tmp_path / "out").exists()


def test_a_damaged_record_or_part_says_what_to_do(tiny_adaptive: Artifact, images: Path) -> None:
    options = job_of(images, tiny_adaptive)
    computed(options)
    part = images.parent / "out" / "part-0000001.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(StorageError, match=r"part-0000001.parquet .* is damaged") as caught:
        read_counts(open_place(options.output), 1)
    assert "remove it" in caught.value.hint
    (images.parent / "out" / RECORD).write_text("{}")
    assert isinstance(refusal(options, tiny_adaptive), ArtifactError)


def test_a_record_that_is_no_file_does_not_keep_the_job_waiting(tiny_adaptive: Artifact, images: Path) -> None:
    options = job_of(images, tiny_adaptive)
    record = images.parent / "out" / RECORD
    record.parent.mkdir(parents=True)
    os.mkfifo(record)
    assert "it is a pipe" in refusal(options, tiny_adaptive).message


def test_two_jobs_do_not_write_at_once(tiny_adaptive: Artifact, images: Path) -> None:
    """Both looked at the folder before either began: the second changes nothing of what the first computes by."""
    first, second = job_of(images, tiny_adaptive), job_of(images, tiny_adaptive, shard=5)
    source, output = open_place(first.source), open_place(first.output)
    with opened_job(first, source, output, wanted_record(first, tiny_adaptive)):
        before = {name: output.read(name) for name in (RECORD, SHARDS)}
        with (
            pytest.raises(StorageError, match="another job is writing"),
            opened_job(second, source, output, wanted_record(second, tiny_adaptive)),
        ):
            pass
        assert {name: output.read(name) for name in (RECORD, SHARDS)} == before


def test_a_job_that_is_computed_again_is_not_done(tiny_adaptive: Artifact, images: Path) -> None:
    options = job_of(images, tiny_adaptive)
    computed(options)
    done = images.parent / "out" / DONE
    done.touch()
    assert not begun(options, tiny_adaptive).pending and done.exists()
    (images.parent / "out" / "part-0000001.parquet").unlink()
    assert begun(options, tiny_adaptive).pending and not done.exists()


@pytest.mark.parametrize("name", ["batch", "token_budget", "shard", "top", "replicas"])
def test_numbers_below_one_are_refused(tiny_adaptive: Artifact, name: str) -> None:
    with pytest.raises(InvalidArgument, match="there cannot be 0"):
        BatchOptions("in", "out", tiny_adaptive.path, **{name: 0})
