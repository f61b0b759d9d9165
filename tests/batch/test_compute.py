"""What a process of a job computes and writes: the runner's answers, one row for each image, whole files alone."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.batch.options import BatchOptions
from sait_deploy.batch.place import open_place
from sait_deploy.batch.rows import Counts, read_counts
from sait_deploy.batch.worker import ShardActor, ShardComputer, counts_in
from sait_deploy.errors import ArtifactError, ServingError, StorageError
from sait_deploy.runtime import RunOptions, load
from tests.batch.jobs import BROKEN, begun, computed, images_in, rows
from tests.exported import TinyExport

pytest.importorskip("pandas", reason="jobs need Ray Data, which brings pyarrow and has no wheel here")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images_in(tmp_path_factory.mktemp("input") / "images")


def job_of(images: object, output: object, artifact: Artifact, **given: Any) -> BatchOptions:
    return BatchOptions(str(images), str(output), artifact.path, **{"threads": 1, "shard": 20, **given})


@pytest.mark.parametrize("given", [{}, {"batch": 3, "token_budget": 40}, {"choice": PointChoice("fast", max_keep=5)}])
def test_rows_are_what_the_runner_answers(
    tiny_adaptive: Artifact, images: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    options = job_of(images, tmp_path / "out", tiny_adaptive, **given)
    computed(options)
    found = rows(tmp_path / "out")
    broken = found.pop(BROKEN)
    assert "broken.png" in broken["error"] and broken["label"] is broken["kept"] is broken["probabilities"] is None
    assert sorted(found) == sorted(path.relative_to(demo.IMAGES).as_posix() for path in demo.IMAGES.glob("*/*.png"))
    runner = load(tiny_adaptive, "onnxruntime", RunOptions(threads=1))
    for name, row in found.items():
        (wanted,) = runner.predict(images / name, 3, options.choice)
        assert (row["label"], row["labels"], row["kept"]) == (wanted.labels[0], list(wanted.labels), wanted.kept), name
        np.testing.assert_allclose(row["probabilities"], wanted.probabilities, atol=1e-5)


@pytest.mark.parametrize("which", ["dense", "half"])
def test_artifacts_without_a_seam_run_whole(tiny: TinyExport, images: Path, tmp_path: Path, which: str) -> None:
    computed(job_of(images, tmp_path / "out", getattr(tiny, which)))
    kept = {row["kept"] for row in rows(tmp_path / "out").values() if row["error"] is None}
    assert kept == {36 if which == "dense" else 18}


@pytest.mark.parametrize("width", [64, 10])
def test_a_model_that_embeds_writes_its_embeddings(
    embedders: list[Artifact], projecting: Artifact, images: Path, tmp_path: Path, width: int
) -> None:
    artifact = projecting if width == 10 else embedders[-1]
    computed(job_of(images, tmp_path / "out", artifact))
    found = rows(tmp_path / "out")
    assert found[BROKEN]["embedding"] is None and "label" not in found[BROKEN]
    assert len(found["0/0.png"]["embedding"]) == width
    runner = load(artifact, "onnxruntime", RunOptions(threads=1))
    for name in ("0/0.png", "7/1.png"):
        wanted = runner.run(runner.preprocess(images / name)).logits[0]
        np.testing.assert_allclose(found[name]["embedding"], wanted, atol=1e-5)


def test_parquet_and_urls_give_the_rows_of_the_folder(tiny_adaptive: Artifact, images: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    files = sorted(images.glob("*/*.png"))
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files] + [{"bytes": None, "path": "none"}]
    parquet.write_table(pa.table({"image": cells}), tmp_path / "in.parquet", row_group_size=7)
    memory: Any = pytest.importorskip("fsspec").filesystem("memory")
    for file in files:
        memory.pipe_file(f"/{tmp_path.name}/in/{file.relative_to(images).as_posix()}", file.read_bytes())
    computed(job_of(images, tmp_path / "folder", tiny_adaptive))
    computed(job_of(tmp_path / "in.parquet", tmp_path / "parquet", tiny_adaptive))
    computed(job_of(f"memory://{tmp_path.name}/in", f"memory://{tmp_path.name}/out", tiny_adaptive))
    memory.get(f"/{tmp_path.name}/out", str(tmp_path / "memory"), recursive=True)
    assert not [name for name in memory.find(f"/{tmp_path.name}/out") if "partial" in name]
    wanted, from_parquet, from_memory = (rows(tmp_path / name) for name in ("folder", "parquet", "memory"))
    assert "data is empty" in from_parquet.pop(f"in.parquet#{len(files)}")["error"]
    for number, file in enumerate(files):
        name = file.relative_to(images).as_posix()
        row = wanted[name]
        for other in (from_parquet[f"in.parquet#{number}"], from_memory[name]):
            assert (other["label"], other["kept"]) == (row["label"], row["kept"])
            assert (other["error"] is None) == (name != BROKEN)


def test_a_shard_that_is_there_is_not_computed_again(tiny_adaptive: Artifact, images: Path, tmp_path: Path) -> None:
    options = job_of(images, tmp_path / "out", tiny_adaptive)
    job = computed(options)
    part = tmp_path / "out" / "part-0000000.parquet"
    before = part.stat()
    counts = ShardComputer(options, tiny_adaptive.manifest.id).compute(*job.pending[0])
    assert (part.stat().st_ino, part.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert counts == read_counts(open_place(options.output), 0) and counts.images == 20
    again = begun(options, tiny_adaptive)
    assert (len(again.done), again.pending) == (len(job.pending), ())


def test_a_process_that_ends_while_it_writes_leaves_no_part(
    tiny_adaptive: Artifact, images: Path, tmp_path: Path
) -> None:
    """A child computes, and ends itself at the moment before its file is put in place."""
    options = job_of(images, tmp_path / "out", tiny_adaptive)
    job = begun(options, tiny_adaptive)
    child = os.fork()
    if not child:
        os.replace = lambda *_: os.kill(os.getpid(), 9)
        ShardComputer(options, tiny_adaptive.manifest.id).compute(*job.pending[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert len(list((tmp_path / "out").glob(".*.partial"))) == 1
    computed(options)
    assert len(rows(tmp_path / "out")) == 41
    assert not list((tmp_path / "out").glob(".*.partial")), "the next call sweeps it"


def test_a_name_in_another_encoding_is_a_row_too(tiny_adaptive: Artifact, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("this system has no such names")
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in ((b"caf\xe9.png", next(demo.IMAGES.glob("*/*.png")).read_bytes()), (b"\xe9.png", b"no image")):
        (folder / os.fsdecode(name)).write_bytes(data)
    computed(job_of(folder, tmp_path / "out", tiny_adaptive))
    found = rows(tmp_path / "out")
    assert found[r"caf\udce9.png"]["label"] and r"\udce9.png" in found[r"\udce9.png"]["error"]


def test_a_file_that_a_server_does_not_give_is_a_row(tiny_adaptive: Artifact, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads HTTP with it")

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/0.png"):
                self.send_error(500)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(images / "0"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        computed(job_of(f"http://127.0.0.1:{server.server_port}/", tmp_path / "out", tiny_adaptive))
        server.shutdown()
    found = {name.rpartition("/")[2]: row for name, row in rows(tmp_path / "out").items()}
    assert "500" in found["0.png"]["error"] and found["1.png"]["label"] and found["1.png"]["error"] is None


def test_what_nobody_foresaw_is_said_in_one_line(tiny_adaptive: Artifact, images: Path, tmp_path: Path) -> None:
    """The list of shards is not there, as where machines do not share the output."""
    actor = ShardActor(job_of(images, tmp_path / "none", tiny_adaptive), tiny_adaptive.manifest.id)
    answered = actor({"number": np.array([0]), "place": np.array([0])})
    with pytest.raises(ServingError, match=r"FileNotFoundError.*shards\.jsonl") as caught:
        counts_in({name: values[0] for name, values in answered.items()})
    assert "\n" not in caught.value.message and caught.value.hint


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(
    tiny_adaptive: Artifact, images: Path, tmp_path: Path, small_disk: Path
) -> None:
    options = job_of(images, small_disk / "out", tiny_adaptive)
    job = begun(options, tiny_adaptive)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    actor = ShardActor(options, tiny_adaptive.manifest.id)
    answered = actor({"number": np.array([0]), "place": np.array([job.pending[0][1]])})
    row = {name: values[0] for name, values in answered.items()}
    with pytest.raises(StorageError, match="No space left") as caught:
        counts_in(row)
    assert caught.value.hint
    assert {entry.name for entry in (small_disk / "out").iterdir()} == {"_job"}
    filler.unlink()
    computed(options)
    assert len(rows(small_disk / "out")) == 41


def test_another_artifact_on_a_machine_is_refused(tiny: TinyExport, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="on this machine") as caught:
        ShardComputer(job_of(images, tmp_path, tiny.dense), tiny.half.manifest.id)
    assert "same artifact" in caught.value.hint


def test_counts_add_up() -> None:
    assert dataclasses.astuple(Counts(3, 1, 20) + Counts(2, 0, 9)) == (5, 1, 29)
