"""The bench stage on an adaptive artifact: a row for each operating point, and what is measured of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.bench.clock import FEWEST_ROUNDS
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.results import BenchRow, Report, Timing
from sait_deploy.bench.run import BenchOptions, bench, with_baseline
from sait_deploy.bench.variants import NO_SWEEP, Sweep
from sait_deploy.errors import InvalidArgument
from sait_deploy.images import dataset
from sait_deploy.images.dataset import PHOTOGRAPHS, folder_dataset
from sait_deploy.runtime import Runner, load
from sait_deploy.tokens import pruned_macs
from tests.exported import CLASSES, TinyExport

PATCHES, DENSE_LABEL = 36, "dense"
FORCED = KeptDistribution(12, 5)
SWEEP = Sweep((1.0, 0.5), ("fast",), (FORCED,))
CHOICES = {
    "fast": PointChoice(point="fast"),
    "mass 1": PointChoice(None, 1.0),
    "mass 0.5": PointChoice(None, 0.5),
}
"""What the labels of a sweep's points stand for."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pieces of a photograph for each of the small model's classes."""
    place = tmp_path_factory.mktemp("photographs")
    for index, path in zip(range(CLASSES), sorted(PHOTOGRAPHS.glob("*.jpg")), strict=False):
        (place / str(index)).mkdir()
        with Image.open(path) as photograph:
            for left in (0, 100):
                piece = photograph.crop((left, 50, left + 120, 170))
                piece.save(place / str(index) / f"{left}.png")
    return place


@pytest.fixture(scope="module")
def quick(photographs: Path) -> BenchOptions:
    return BenchOptions(batches=(1, 3), threads=1, images=photographs, warmup=0, duration=0.01, sweep=SWEEP)


@pytest.fixture(scope="module")
def together(tiny: TinyExport, tiny_adaptive: Artifact) -> list[Artifact]:
    """Dense, density and adaptive artifacts of the same weights."""
    return [tiny.dense, tiny.half, tiny_adaptive]


@pytest.fixture(scope="module")
def report(together: list[Artifact], quick: BenchOptions) -> Report:
    return bench(together, quick)


def labelled(report: Report, label: str) -> list[BenchRow]:
    (variant,) = (variant.id for variant in report.variants if variant.label == label)
    return [row for row in report.rows if row.variant == variant]


def kept_of(artifact: Artifact, row: BenchRow, choice: PointChoice, photographs: Path) -> NDArray[np.int32]:
    """Kept tokens of the images that a row is of: the folder's, shuffled, over and over, each in a batch of its own."""
    runner, listed = load(artifact), folder_dataset(photographs, None, CLASSES).images
    paths = [listed[i] for i in np.random.default_rng(0).permutation(len(listed))]
    images = runner.preprocess([paths[i % len(paths)] for i in range(row.batches * row.batch)])
    return np.concatenate([runner.run_at(image[None], choice).kept for image in images])


def test_an_adaptive_artifact_finds_its_baseline(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    found = with_baseline([tiny_adaptive.path, tiny.half.path])
    assert [artifact.path for artifact in found] == [tiny.dense.path, tiny_adaptive.path, tiny.half.path]


def test_every_point_is_a_row_at_every_batch_size(report: Report) -> None:
    labels = ["dense", "density 0.5", "fast", "mass 1", "mass 0.5", "kept 12 ± 5"]
    assert [variant.label for variant in report.variants] == labels
    assert [variant.baseline for variant in report.variants] == [True, *[False] * 5]
    wanted = [(batch, variant.id) for batch in (1, 3) for variant in report.variants]
    assert [(row.batch, row.variant) for row in report.rows] == wanted
    assert len({variant.model_sha256 for variant in report.variants}) == 3
    for batch in (1, 3):
        (rounds,) = {len(row.seconds) for row in report.rows if row.batch == batch}
        assert rounds >= FEWEST_ROUNDS


def test_without_a_sweep_the_named_points_are_measured(tiny_adaptive: Artifact, quick: BenchOptions) -> None:
    report = bench(with_baseline([tiny_adaptive.path]), replace(quick, batches=(2,), sweep=NO_SWEEP))
    assert [variant.label for variant in report.variants] == ["dense", "mass 0.6", "fast", "wide"]
    assert {row.batches for row in report.rows} == {8}
    assert labelled(report, "fast")[0].kept_max <= 8
    assert min(row.kept_mean for row in labelled(report, "wide")) >= 12


@pytest.mark.parametrize("label", list(CHOICES))
def test_kept_tokens_are_those_that_running_it_keeps(
    report: Report, tiny_adaptive: Artifact, photographs: Path, label: str
) -> None:
    for row in labelled(report, label):
        kept = kept_of(tiny_adaptive, row, CHOICES[label], photographs)
        assert (row.kept_mean, row.kept_max) == (kept.mean(), kept.max())
        assert row.kept_p95 == pytest.approx(np.quantile(kept, 0.95))


@pytest.mark.parametrize("label", list(CHOICES))
def test_the_mac_ratio_is_that_of_the_images_mean(
    report: Report, tiny_adaptive: Artifact, photographs: Path, label: str
) -> None:
    """Not that of the mean number of tokens: attention is quadratic in them."""
    pruning, geometry = tiny_adaptive.manifest.pruning, tiny_adaptive.manifest.model.geometry
    assert pruning is not None
    for row in labelled(report, label):
        kept = kept_of(tiny_adaptive, row, CHOICES[label], photographs)
        macs = np.mean([pruned_macs(geometry, pruning.prune_at, int(count)) for count in kept])
        assert abs(row.macs - macs) <= 0.5
        assert row.mac_ratio == tiny_adaptive.manifest.macs.dense / row.macs


def test_mass_1_does_dense_s_work(report: Report) -> None:
    for row, dense in zip(labelled(report, "mass 1"), labelled(report, DENSE_LABEL), strict=True):
        assert (row.kept_mean, row.kept_p95, row.kept_max) == (PATCHES, PATCHES, PATCHES)
        assert (row.mac_ratio, row.macs) == (1.0, dense.macs)
    accuracies = [v.accuracy for v in report.variants if v.label in ("mass 1", DENSE_LABEL)]
    assert accuracies[0] == accuracies[1]


def test_forced_counts_come_out_as_forced(report: Report) -> None:
    for row in labelled(report, "kept 12 ± 5"):
        counts = FORCED.counts(row.batches * row.batch, PATCHES)
        assert (row.kept_mean, row.kept_max) == (counts.mean(), counts.max())
        assert row.kept_p95 == pytest.approx(np.quantile(counts, 0.95))


def test_forced_counts_have_no_accuracy_and_points_have_the_runner_s(
    report: Report, tiny: TinyExport, tiny_adaptive: Artifact, photographs: Path
) -> None:
    images = folder_dataset(photographs, None, CLASSES)
    assert images.labels is not None
    answers = {}
    for label, artifact, choice in (
        (DENSE_LABEL, tiny.dense, PointChoice()),
        *((label, tiny_adaptive, choice) for label, choice in CHOICES.items()),
    ):
        runner = load(artifact)
        answers[label] = runner.run_at(runner.preprocess(list(images.images)), choice).logits.argmax(axis=1)
    by_label = {variant.label: variant.accuracy for variant in report.variants}
    assert by_label["kept 12 ± 5"] is None
    for label, answer in answers.items():
        accuracy = by_label[label]
        assert accuracy is not None and accuracy.images == 2 * CLASSES
        assert accuracy.percent == pytest.approx(100 * (answer == images.labels).mean())


def test_all_that_prunes_is_compared_between_ways_of_running(report: Report) -> None:
    ways = ("batch 1 and 8", "onnxruntime and torch")
    wanted = [(variant.id, way, 2 * CLASSES) for variant in report.variants[1:] for way in ways]
    assert [(flips.variant, flips.between, flips.images) for flips in report.flips] == wanted
    assert any(note.text.startswith("no kept set and no answer of 10 images differs between ") for note in report.notes)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_compute_alone_keeps_the_same_tokens(
    together: list[Artifact], report: Report, quick: BenchOptions, runtime: str
) -> None:
    found = bench(together, replace(quick, batches=(3,), timing=Timing.COMPUTE, runtimes=(runtime,)))
    assert (found.timing, found.groups[0].name) == (Timing.COMPUTE, runtime)
    wanted = {row.variant.replace("onnxruntime", runtime): row.kept_mean for row in report.rows if row.batch == 3}
    # A token at the very edge may fall to the other side on another runtime.
    assert {row.variant: row.kept_mean for row in found.rows} == pytest.approx(wanted, abs=0.1)
    assert all(min(row.seconds) > 0 for row in found.rows)


def test_every_point_is_timed_as_itself_and_on_the_same_images(
    together: list[Artifact], quick: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Binding is for timing alone, so what is bound is what is timed: here eight batches of three images."""
    bound: list[tuple[bytes, PointChoice]] = []
    bind = Runner.bind

    def watched(runner: Runner, images: NDArray[np.float32], choice: PointChoice) -> Callable[[], float | None]:
        bound.append((images.tobytes(), choice))
        return bind(runner, images, choice)

    monkeypatch.setattr(Runner, "bind", watched)
    report = bench(together, replace(quick, batches=(3,), timing=Timing.COMPUTE))
    by_label = {v.label: bound[8 * i : 8 * i + 8] for i, v in enumerate(report.variants)}
    assert len(bound) == 8 * len(by_label)
    assert len({tuple(images for images, _ in found) for found in by_label.values()}) == 1
    for label, choice in {DENSE_LABEL: PointChoice(), **CHOICES}.items():
        assert [own for _, own in by_label[label]] == [choice] * 8
    for limit in ("min_keep", "max_keep"):
        forced = np.concatenate([getattr(own, limit) for _, own in by_label["kept 12 ± 5"]])
        assert_array_equal(forced, FORCED.counts(24, PATCHES))


@pytest.mark.parametrize(
    "sweep", [NO_SWEEP, Sweep(points=("fast",)), Sweep(masses=(1.0, 0.9)), Sweep(masses=(0.9,), kept=(FORCED,))]
)
def test_counts_of_shipped_photographs_would_mean_nothing(
    together: list[Artifact], quick: BenchOptions, sweep: Sweep
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        bench(together, replace(quick, images=None, sweep=sweep))
    assert caught.value.message == "how many tokens test_vit keeps of the shipped photographs would mean nothing"
    assert "--images DIR" in caught.value.hint and "--kept MEAN:SD" in caught.value.hint


@pytest.mark.parametrize("sweep", [Sweep(masses=(1.0,)), Sweep(masses=(1.0, 1.5), kept=(FORCED,))])
def test_shipped_photographs_do_where_counts_do_not_follow_from_them(
    together: list[Artifact], quick: BenchOptions, sweep: Sweep
) -> None:
    report = bench(together, replace(quick, batches=(1,), images=None, sweep=sweep))
    assert report.options["images"] == "shipped photographs"
    assert {row.kept_max for row in labelled(report, "mass 1")} <= {PATCHES}


def test_the_demonstration_s_own_images_do(
    tiny: TinyExport, tiny_adaptive: Artifact, quick: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small model under the demonstration's name, whose digits have its size; torch's weights are others then."""
    pytest.importorskip("sklearn")
    monkeypatch.setattr(dataset, "GENERATED_COUNT", 8)
    artifacts = [renamed(artifact) for artifact in (tiny.dense, tiny_adaptive)]
    report = bench(artifacts, replace(quick, batches=(1,), images=None, sweep=NO_SWEEP))
    assert report.options["images"] == "8 composed held-out digits"
    assert labelled(report, "mass 0.6")[0].kept_mean < PATCHES
    assert any(
        note.text.startswith("kept sets were not compared between onnxruntime and torch") for note in report.notes
    )


def renamed(artifact: Artifact) -> Artifact:
    manifest = artifact.manifest
    return Artifact(
        artifact.path, dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, name=demo.NAME))
    )
