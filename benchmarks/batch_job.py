"""``sait-deploy batch`` killed and resumed, and its throughput against the runner's.

    python -m benchmarks.batch_job kills
    python -m benchmarks.batch_job throughput --artifact artifacts/deit_small_patch16_224-adaptive

``kills``: 20,000 images, the shipped digits under many names and some files that are none, through the demonstration
model. Actors are ended with SIGKILL when 10 % and 30 % of the files are there, the driver when 50 % are, and the
command is given again. Every name has to be in the output once. The driver's memory stands beside that of a job of
2,000 images.

``throughput``: 2,000 JPEG files, cut-outs of the shipped photographs, through DeiT-S with random weights, 2 threads,
kept tokens forced to 105 ± 25. Three ways take turns, a hundred images each: the runner on prepared images in batches
by count; batches of tokens of the same images; and all that a process of a job does, from files to a Parquet file.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from PIL import Image

from benchmarks.common import RESULTS, THREADS, environment, read_result, write
from sait_deploy import demo
from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.artifacts.points import PointChoice, mass_point
from sait_deploy.batch.options import BatchOptions
from sait_deploy.batch.packing import packed_answers
from sait_deploy.batch.place import open_place
from sait_deploy.batch.record import opened_job, wanted_record
from sait_deploy.batch.worker import ShardComputer
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.errors import SaitError
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export_model
from sait_deploy.images.dataset import PHOTOGRAPHS
from sait_deploy.images.preprocess import list_images
from sait_deploy.models.registry import WeightsRequest, WeightsSource, load_model
from sait_deploy.runtime import RunOptions, load
from sait_deploy.serving.stages import ImageAnswer, ImagePoint, Prepared, open_stages
from sait_deploy.system.children import child_environment

NAME: Final = "batch_job"
KEPT: Final = KeptDistribution(105, 25)
IMAGES, FEW, BROKEN_EACH = 20_000, 2_000, 500
SHARD: Final = 200
DEIT_IMAGES, ROUND = 2_000, 100
BATCH: Final = 8
_FOLDER: Final = 500


@click.group()
def main() -> None:
    """Measures jobs."""


def record(part: str, found: dict[str, Any]) -> None:
    """Writes a part of the result file beside the other part."""
    before = read_result(NAME) if (RESULTS / f"{NAME}.json").is_file() else {}
    parts = {name: before[name] for name in ("kills", "throughput") if name in before}
    command = "python -m benchmarks.batch_job kills; python -m benchmarks.batch_job throughput --artifact ARTIFACT"
    machine = environment("onnxruntime", "ray", "pyarrow", "numpy")
    click.echo(write(NAME, command, parts | {part: {**found, "environment": machine}}, machine))


def name_images(folder: Path, images: int) -> set[str]:
    """Links the shipped digits under so many names, one of ``BROKEN_EACH`` being no image; returns the names."""
    digits = sorted(demo.IMAGES.glob("*/*.png"))
    names = set()
    for number in range(images):
        name = f"{number // _FOLDER:04d}/{number:06d}.png"
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if number % BROKEN_EACH == 7:
            place.write_bytes(b"no image")
        else:
            source = folder.parent / "digits" / f"{number % len(digits)}.png"
            if not source.exists():
                source.parent.mkdir(exist_ok=True)
                shutil.copy(digits[number % len(digits)], source)
            os.link(source, place)
        names.add(name)
    return names


@dataclasses.dataclass
class Started:
    """A job's process, and the most memory that was seen of it."""

    process: subprocess.Popen[bytes]
    output: Path
    most_mib: float = 0.0

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Waits, looking at the process's memory.

        Raises:
            RuntimeError: the process ended before.
        """
        import psutil

        while not done():
            if self.process.poll() is not None:
                raise RuntimeError(f"the job ended with {self.process.returncode}")
            self.most_mib = max(self.most_mib, psutil.Process(self.process.pid).memory_info().rss / 2**20)
            time.sleep(0.05)

    def parts(self) -> int:
        """How many files of the output are there."""
        return sum(1 for _ in self.output.glob("*.parquet"))

    def kill_actor(self) -> None:
        """Ends one of the processes that compute."""
        import psutil

        children = psutil.Process(self.process.pid).children(recursive=True)
        next(child for child in children if "MapWorker" in " ".join(child.cmdline())).kill()


def start(images: Path, output: Path, artifact: Path) -> Started:
    """Starts the command."""
    options = ["--artifact", artifact, "--shard", SHARD, "--threads", THREADS]
    call = [sys.executable, "-m", "sait_deploy", "batch", *map(str, [images, "-o", output, *options])]
    return Started(subprocess.Popen(call, env=child_environment(), stdout=subprocess.DEVNULL), output)


def end(job: Started) -> float:
    """Waits for the end of a job; returns the most memory that was seen of it, MiB."""
    try:
        job.wait_for(lambda: job.process.poll() is not None)
    except RuntimeError:
        if job.process.returncode:
            raise
    return job.most_mib


def check_rows(output: Path, names: set[str]) -> dict[str, int]:
    """Counts images that are there once, more than once, not at all and not asked for, and rows with an error."""
    from pyarrow import dataset

    table = dataset.dataset(output, format="parquet").to_table(columns=["image", "error"])
    seen = Counter(table["image"].to_pylist())
    return {
        "images": len(names),
        "once": sum(count == 1 for name, count in seen.items() if name in names),
        "more than once": sum(count > 1 for count in seen.values()),
        "missing": len(names - set(seen)),
        "not of the input": len(set(seen) - names),
        "with an error": len(table) - table["error"].null_count,
    }


@main.command()
def kills() -> None:
    """Kills actors and the driver, resumes, and counts what is there."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demonstration = load_model(demo.NAME, WeightsRequest(WeightsSource.DEMO))
        options = ExportOptions(points=(mass_point(0.9),), output=folder / "artifacts")
        artifact = export_model(demonstration, options)[-1].path
        few = name_images(folder / "few" / "images", FEW)
        names = name_images(folder / "many" / "images", IMAGES)
        little = end(start(folder / "few" / "images", folder / "few" / "out", artifact))
        assert check_rows(folder / "few" / "out", few)["once"] == FEW
        images, output = folder / "many" / "images", folder / "many" / "out"
        shards, events = IMAGES // SHARD, []
        job = start(images, output, artifact)
        for share in (0.1, 0.3):
            job.wait_for(lambda share=share: job.parts() >= share * shards)  # type: ignore[misc]
            job.kill_actor()
            events.append({"killed": "actor", "files there": job.parts()})
        job.wait_for(lambda: job.parts() >= 0.5 * shards)
        job.process.kill()
        job.process.wait()
        events.append({"killed": "driver", "files there": job.parts()})
        again = end(start(images, output, artifact))
        found = check_rows(output, names)
    memory = {f"{FEW} images": round(little), f"{IMAGES} images, killed": round(job.most_mib)}
    memory[f"{IMAGES} images, resumed"] = round(again)
    record("kills", {"files": shards, "kills": events, "rows": found, "driver's memory, MiB": memory})


def jpeg_files(folder: Path, images: int) -> None:
    """Writes the shipped photographs, each flipped or not and cut out anew, as JPEG files of 256 pixels a side."""
    sources = [Image.open(path).convert("RGB") for path in list_images(PHOTOGRAPHS).paths]
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(images):
        picture = sources[number % len(sources)]
        side = int(min(picture.size) * random.uniform(0.5, 1))
        left, top = (int(random.integers(0, edge - side + 1)) for edge in picture.size)
        data = io.BytesIO()
        picture.crop((left, top, left + side, top + side)).resize((256, 256)).save(data, "JPEG", quality=90)
        (folder / f"{number:05d}.jpg").write_bytes(data.getvalue())


class ForcedComputer(ShardComputer):
    """A job's process whose images keep given numbers of tokens."""

    counts: tuple[int, ...] = ()

    def point_of(self, index: int) -> ImagePoint:
        """Returns the point at which an image keeps its number."""
        return forced(self.counts[index])


def forced(count: int) -> ImagePoint:
    """Returns the point at which an image keeps so many patch tokens."""
    return ImagePoint(1.0, int(count), int(count))


@main.command()
@click.option("--artifact", type=click.Path(path_type=Path), required=True, help="DeiT-S, adaptive.")
@click.option("--images", type=int, default=DEIT_IMAGES, show_default=True)
def throughput(artifact: Path, images: int) -> None:
    """Times the runner, batches by count and of tokens across the seam, and a job's process, in turns."""
    opened = open_artifact(artifact)
    counts = KEPT.counts(ROUND, opened.manifest.model.geometry.patch_tokens)
    runner = load(opened, "onnxruntime", RunOptions(threads=THREADS))
    stages = open_stages(opened, "onnxruntime", RunOptions(threads=THREADS))
    budgets = {
        "tokens": BATCH * opened.manifest.model.geometry.tokens,
        "mean tokens": BATCH * (1 + round(counts.mean())),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        jpeg_files(folder / "images", images)
        options = BatchOptions(
            str(folder / "images"), str(folder / "out"), artifact, threads=THREADS, batch=BATCH, shard=ROUND
        )
        output, source = open_place(options.output), open_place(options.source)
        wanted = wanted_record(options, opened)
        with opened_job(options, source, output, wanted) as job:
            computer = ForcedComputer(options, opened.manifest.id)
        computer.counts = tuple(map(int, counts))
        seconds: dict[str, list[float]] = {name: [] for name in ("runner", "count", *budgets, "process")}
        for turn, (number, place) in enumerate(job.pending):
            paths = sorted((folder / "images").iterdir())[number * ROUND : (number + 1) * ROUND]
            prepared = runner.preprocess(paths)

            def by_count(prepared: Any = prepared) -> None:
                for start in range(0, ROUND, BATCH):
                    kept = counts[start : start + BATCH]
                    runner.run_at(prepared[start : start + BATCH], PointChoice(None, 1.0, kept, kept))

            images_of = [Prepared(image, forced(count)) for image, count in zip(prepared, counts, strict=True)]

            def cut_by_count(given: list[Prepared] = images_of) -> None:
                for start in range(0, ROUND, BATCH):
                    stages.trunk(stages.stem(given[start : start + BATCH]))

            def by_tokens(budget: int, given: list[Prepared] = images_of) -> None:
                check(list(packed_answers(stages, iter(enumerate(given)), BATCH, budget)), counts)

            def process(number: int = number, place: int = place) -> None:
                assert computer.compute(number, place).kept == counts.sum()

            ways: dict[str, Callable[[], None]] = {"runner": by_count, "count": cut_by_count, "process": process}
            ways |= {name: functools.partial(by_tokens, budget) for name, budget in budgets.items()}
            for name in rotated(list(ways), turn):
                started = time.perf_counter()
                ways[name]()
                seconds[name].append(time.perf_counter() - started)
    record("throughput", summary(seconds, images))


def check(answered: list[tuple[int, ImageAnswer | SaitError]], counts: Any) -> None:
    """Refuses answers that are missing or of images that kept another number of tokens."""
    kept = {number: one.kept for number, one in answered if isinstance(one, ImageAnswer)}
    assert [kept[number] for number in range(len(counts))] == counts.tolist()


def rotated(names: list[str], turn: int) -> Iterator[str]:
    """Yields names, beginning with another one each turn."""
    yield from (names[(turn + i) % len(names)] for i in range(len(names)))


def summary(seconds: dict[str, list[float]], images: int) -> dict[str, Any]:
    """Returns medians of ratios of times that took turns, with their quartiles."""
    found: dict[str, Any] = {"images": images, "images of a turn": ROUND, "batch": BATCH, "kept": "105 ± 25"}
    for name, rival, called in (
        ("tokens", "count", "batches of tokens over batches by count"),
        ("mean tokens", "count", "batches of as many tokens as eight images keep over batches by count"),
        ("count", "runner", "batches by count, cut at the seam, over runner"),
        ("process", "runner", "job over runner"),
    ):
        ratios = np.array(seconds[rival]) / np.array(seconds[name])
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        found[called] = {"throughput, median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
    return found


if __name__ == "__main__":
    main()
