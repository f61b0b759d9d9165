"""How often kept sets and answers flip: counted on real runners, against the same count made here image by image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.bench.flips import Setting, answers_of, count_flips, flip_notes
from sait_deploy.bench.groups import GroupPlan
from sait_deploy.bench.kept import KeptDistribution
from sait_deploy.bench.results import Flips
from sait_deploy.bench.variants import NO_SWEEP, RunnableVariant, Sweep, runnable_variants
from sait_deploy.errors import InvalidArgument
from sait_deploy.reports.table import Note
from sait_deploy.runtime import Runner, RunOptions, Selection, load
from sait_deploy.system.processors import processors
from tests.exported import TinyExport, change_weight, copied, graph_of, with_graph
from tests.tiny import random_batch

ORT, TORCH = "onnxruntime", "torch"
ONE_THREAD = RunOptions(threads=1)
ON_ORT = GroupPlan(ORT, None, ())
IMAGES = random_batch((13, 3, 96, 96))
"""No whole number of batches, whatever their size."""

SWEEP = Sweep((0.6,), ("fast",), (KeptDistribution(12, 5),))


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """Counting gives torch the benchmark's threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def changed(tiny_adaptive: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The adaptive artifact with another weight in the attention that importance is read off."""
    artifact = copied(tiny_adaptive, tmp_path_factory.mktemp("changed"))
    graph = graph_of(artifact)
    change_weight(graph, "blocks.1.attn.qkv.weight", 1.0)
    with_graph(artifact, graph)
    return open_artifact(artifact.path)


def texts(notes: list[Note]) -> list[str]:
    return [note.text for note in notes]


def swept(artifact: Artifact) -> list[RunnableVariant]:
    return runnable_variants([artifact], SWEEP)


def percentages(one: Runner, other: Runner, subject: RunnableVariant) -> tuple[float, float]:
    """Shares of images whose kept set, and whose answer, differ between two runners: one image at a time."""
    choices = subject.choices(len(IMAGES))
    kept, answers = [], []
    for i in range(len(IMAGES)):
        part = slice(i, i + 1)
        a, b = (runner.select_at(IMAGES[part], choices.of(part)) for runner in (one, other))
        kept.append(a.keep.tolist() != b.keep.tolist())
        answers.append(int(a.logits[0].argmax()) != int(b.logits[0].argmax()))
    return 100 * float(np.mean(kept)), 100 * float(np.mean(answers))


def found_between(flips: list[Flips], between: str) -> list[tuple[float, float]]:
    return [(flip.kept_sets_percent, flip.answers_percent) for flip in flips if flip.between == between]


def test_equal_ways_of_running_flip_nothing(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    """Dense selects nothing and is left out."""
    artifacts = [tiny.dense, tiny.half, tiny_adaptive]
    subjects = runnable_variants(artifacts, NO_SWEEP)
    runners = {artifact.manifest.id: load(artifact, ORT, ONE_THREAD) for artifact in artifacts}
    flips, notes = count_flips(subjects, runners, IMAGES, Setting(ON_ORT, 1, 4))
    ways = ("batch 1 and 8", "onnxruntime and torch")
    assert flips == [Flips(subject.id, way, len(IMAGES), 0.0, 0.0) for subject in subjects[1:] for way in ways]
    assert notes == []


def test_dense_alone_is_not_compared(tiny: TinyExport) -> None:
    runners = {tiny.dense.manifest.id: load(tiny.dense, ORT, ONE_THREAD)}
    assert count_flips(runnable_variants([tiny.dense], NO_SWEEP), runners, IMAGES, Setting(ON_ORT, 2, 8)) == ([], [])


def test_a_graph_that_selects_otherwise_than_torch_is_counted(changed: Artifact) -> None:
    subjects, runner = swept(changed), load(changed, ORT, ONE_THREAD)
    flips, _ = count_flips(subjects, {changed.manifest.id: runner}, IMAGES, Setting(ON_ORT, 1, 1))
    wanted = [percentages(runner, load(changed, TORCH, ONE_THREAD), subject) for subject in subjects]
    assert found_between(flips, "onnxruntime and torch") == wanted
    assert found_between(flips, "batch 1 and 8") == [(0, 0)] * 3
    assert any(0 < kept < 100 for kept, _ in wanted)
    assert any(answers > 0 for _, answers in wanted)


def test_torch_is_compared_with_onnxruntime_and_its_threads_are_not(changed: Artifact) -> None:
    subjects, runner = swept(changed), load(changed, TORCH, ONE_THREAD)
    flips, _ = count_flips(subjects, {changed.manifest.id: runner}, IMAGES, Setting(GroupPlan(TORCH, None, ()), 2, 1))
    wanted = [percentages(runner, load(changed, ORT), subject) for subject in subjects]
    assert found_between(flips, "torch and onnxruntime") == wanted
    assert {flip.between for flip in flips} == {"batch 1 and 8", "torch and onnxruntime"}


@pytest.mark.parametrize("threads", [2, None])
def test_more_threads_than_one_are_compared_with_one(
    tiny_adaptive: Artifact, changed: Artifact, threads: int | None
) -> None:
    """The runner here is of another graph, so that what the artifact does on one thread differs from it."""
    subjects, runner = swept(tiny_adaptive)[1:2], load(changed, ORT, ONE_THREAD)
    flips, _ = count_flips(subjects, {tiny_adaptive.manifest.id: runner}, IMAGES, Setting(ON_ORT, threads, 1))
    several = processors() if threads is None else threads
    wanted = [percentages(runner, load(tiny_adaptive, ORT, ONE_THREAD), subject) for subject in subjects]
    assert found_between(flips, f"1 and {several} threads") == (wanted if several > 1 else [])
    assert wanted[0][0] > 0


def test_what_was_compared_before_is_not_compared_again(tiny_adaptive: Artifact) -> None:
    """torch has been told to differ from ONNX Runtime or not when that was measured; an engine is compared with it."""
    subjects, runner = swept(tiny_adaptive)[:1], load(tiny_adaptive, ORT, ONE_THREAD)
    runners, engine = {tiny_adaptive.manifest.id: runner}, "tensorrt-rtx"
    for setting, wanted in (
        (Setting(GroupPlan(TORCH, None, ()), 1, 8, (ORT,)), []),
        (Setting(GroupPlan(TORCH, None, ()), 1, 8, (engine,)), ["torch and onnxruntime"]),
        (Setting(GroupPlan(engine, None, ()), 1, 8, (ORT, TORCH)), ["tensorrt-rtx and onnxruntime"]),
        (Setting(ON_ORT, 1, 8, (engine,)), ["onnxruntime and torch"]),
    ):
        flips, notes = count_flips(subjects, runners, IMAGES, setting)
        assert ([flip.between for flip in flips], notes) == (["batch 1 and 8", *wanted], [])


class Few:
    """A runner that takes few batch sizes; it remembers which it got."""

    def __init__(self, runner: Runner, batch_range: tuple[int, int]) -> None:
        self.runner, self.batch_range = runner, batch_range
        self.sizes: list[int] = []

    def select_at(self, images: NDArray[np.float32], choice: PointChoice) -> Selection:
        self.sizes.append(len(images))
        if not self.batch_range[0] <= len(images) <= self.batch_range[1]:
            raise InvalidArgument(f"it does not take {len(images)} images")
        return self.runner.select_at(images, choice)


@pytest.mark.parametrize(
    ("batch_range", "ways", "sizes"),
    [
        ((1, 4), ["batch 1 and 4"], [4, 4, 4, 1, *[1] * 13]),
        ((3, 4), ["batch 3 and 4"], [4, 4, 4, 3, *[3] * 5]),
        ((5, 5), [], [5, 5, 5]),
        ((20, 30), [], [20]),
    ],
)
def test_an_engine_is_compared_at_the_batch_sizes_that_it_takes(
    tiny_adaptive: Artifact, batch_range: tuple[int, int], ways: list[str], sizes: list[int]
) -> None:
    """With images that come once more where the last would be too few, each is still counted once."""
    subject, few = swept(tiny_adaptive)[2], Few(load(tiny_adaptive, ORT, ONE_THREAD), batch_range)
    runners: dict[str, Runner] = {tiny_adaptive.manifest.id: few}  # type: ignore[dict-item]
    flips, notes = count_flips([subject], runners, IMAGES, Setting(ON_ORT, 1, 8))
    assert flips == [Flips(subject.id, way, 13, 0.0, 0.0) for way in (*ways, "onnxruntime and torch")]
    assert (few.sizes, notes) == (sizes, [])


def test_a_runner_that_cannot_say_what_it_selects_is_told_of(tiny_adaptive: Artifact) -> None:
    few = Few(load(tiny_adaptive, ORT, ONE_THREAD), (1, 4))
    few.select_at = lambda images, choice: few.runner.select_at(images[:0], choice)  # type: ignore[method-assign]
    runners: dict[str, Runner] = {tiny_adaptive.manifest.id: few}  # type: ignore[dict-item]
    flips, notes = count_flips(swept(tiny_adaptive), runners, IMAGES, Setting(ON_ORT, 1, 8))
    assert flips == []
    assert [note.text.partition(":")[0] for note in notes] == [
        "kept sets were not compared between batch 1 and 4",
        "kept sets were not compared between onnxruntime and torch",
    ]


class OtherwiseAlone:
    """Two runners: one for images that come alone, one for those that come together; it remembers how they came."""

    batch_range = (1, 1000)

    def __init__(self, alone: Runner, together: Runner) -> None:
        self.alone, self.together = alone, together
        self.sizes: list[int] = []

    def select_at(self, images: NDArray[np.float32], choice: PointChoice) -> Selection:
        self.sizes.append(len(images))
        return (self.alone if len(images) == 1 else self.together).select_at(images, choice)


@pytest.mark.parametrize(("batch", "large", "sizes"), [(1, 8, [8, 5]), (8, 8, [8, 5]), (10, 10, [10, 3])])
def test_one_image_at_a_time_is_compared_with_the_largest_batch(
    tiny_adaptive: Artifact, changed: Artifact, batch: int, large: int, sizes: list[int]
) -> None:
    alone, together = load(changed, ORT, ONE_THREAD), load(tiny_adaptive, ORT, ONE_THREAD)
    subject, runner = swept(tiny_adaptive)[1], OtherwiseAlone(alone, together)
    runners: dict[str, Runner] = {tiny_adaptive.manifest.id: runner}  # type: ignore[dict-item]
    flips, _ = count_flips([subject], runners, IMAGES, Setting(ON_ORT, 1, batch))
    assert found_between(flips, f"batch 1 and {large}") == [percentages(alone, together, subject)]
    assert runner.sizes == [*sizes, *[1] * len(IMAGES)]
    assert flips[0].kept_sets_percent > 0


def test_what_cannot_be_compared_is_said_once(tiny_adaptive: Artifact, tmp_path: Path) -> None:
    manifest = tiny_adaptive.manifest
    weights = dataclasses.replace(manifest.weights, origin=str(tmp_path / "gone.safetensors"))
    artifact = Artifact(tiny_adaptive.path, dataclasses.replace(manifest, weights=weights))
    runners = {manifest.id: load(artifact, ORT, ONE_THREAD)}
    flips, notes = count_flips(swept(artifact), runners, IMAGES[:3], Setting(ON_ORT, 1, 1))
    assert {flip.between for flip in flips} == {"batch 1 and 3"}
    (note,) = notes
    assert note.text.startswith("kept sets were not compared between onnxruntime and torch: ")
    assert "gone.safetensors" in note.text


LABELS = {"a": "mass 0.9", "b": "kept 105 ± 25", "c": "density 0.6"}
WAYS = ("batch 1 and 32", "1 and 2 threads")


def test_one_image_has_no_other_batch_size(tiny_adaptive: Artifact) -> None:
    runners = {tiny_adaptive.manifest.id: load(tiny_adaptive, ORT, ONE_THREAD)}
    flips, _ = count_flips(swept(tiny_adaptive), runners, IMAGES[:1], Setting(ON_ORT, 1, 1))
    assert {flip.between for flip in flips} == {"onnxruntime and torch"}
    assert "of 1 image differs" in flip_notes(flips, {flip.variant: "m" for flip in flips})[0].text


def test_a_line_for_all_claims_no_comparison_that_one_of_them_lacks() -> None:
    flips = [Flips("a", WAYS[0], 48, 0.0, 0.0), *(Flips("b", way, 48, 0.0, 0.0) for way in WAYS)]
    assert texts(flip_notes(flips, LABELS)) == [
        f"no kept set and no answer of 48 images differs between {WAYS[0]}: mass 0.9",
        f"no kept set and no answer of 48 images differs between {'; '.join(WAYS)}: kept 105 ± 25",
    ]


def test_where_nothing_flips_one_line_says_it_for_all() -> None:
    flips = [Flips(name, way, 48, 0.0, 0.0) for name in LABELS for way in WAYS]
    assert texts(flip_notes(flips, LABELS)) == [
        "no kept set and no answer of 48 images differs between batch 1 and 32; 1 and 2 threads: "
        "mass 0.9, kept 105 ± 25, density 0.6"
    ]


def test_what_flips_has_a_line_of_its_own() -> None:
    """An answer alone is enough, and the ways that flip nothing stand beside those that do."""
    flips = [
        Flips("a", WAYS[0], 48, 0.0, 0.0),
        Flips("a", WAYS[1], 48, 100 / 48, 0.0),
        *(Flips("b", way, 48, 0.0, 0.0) for way in WAYS),
        Flips("c", WAYS[0], 48, 0.0, 6.25),
        Flips("c", WAYS[1], 48, 0.0, 0.0),
    ]
    assert texts(flip_notes(flips, LABELS)) == [
        "mass 0.9, of 48 images, kept sets and answers differ: 0.0 % and 0.0 % between batch 1 and 32; "
        "2.1 % and 0.0 % between 1 and 2 threads",
        "density 0.6, of 48 images, kept sets and answers differ: 0.0 % and 6.2 % between batch 1 and 32; "
        "0.0 % and 0.0 % between 1 and 2 threads",
        "no kept set and no answer of 48 images differs between batch 1 and 32; 1 and 2 threads: kept 105 ± 25",
    ]


def test_where_all_flip_none_is_called_steady() -> None:
    (line,) = flip_notes([Flips("a", WAYS[0], 48, 50.0, 25.0)], LABELS)
    assert line.text.startswith("mass 0.9, of 48 images")


def test_where_nothing_was_compared_nothing_is_said() -> None:
    assert flip_notes([], LABELS) == []


def test_an_answer_of_a_model_that_embeds_is_the_image_nearest_to_it(embedders: list[Artifact]) -> None:
    runner = load(embedders[2], options=ONE_THREAD)
    logits = runner.run(IMAGES).logits
    near = logits @ logits.T - 3 * np.eye(len(logits))
    np.testing.assert_array_equal(answers_of(logits, 0), near.argmax(axis=1))
    np.testing.assert_array_equal(answers_of(logits, 64), logits.argmax(axis=1))
    assert answers_of(logits[:1], 0).shape == (1,)
