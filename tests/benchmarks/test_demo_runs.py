"""Which trainings are compared, and what their images are divided by."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo_runs import SEEDS, TEACHERS, Run, composed, runs
from sait_deploy.demo.data import HEAVY_CLUTTER, LIGHT_CLUTTER, TWO_OBJECTS, CanvasOptions, Split, compose_scenes
from sait_deploy.tokens import Score
from sait_deploy.training.options import Alternation

FOLDER = Path("somewhere")
RUNS = {run.name: run for run in runs(FOLDER)}


def differences(one: Run, other: Run) -> dict[str, object]:
    """What the first has otherwise than the second, but for names; its teacher is an option, too."""
    fields = [field.name for field in dataclasses.fields(one.options) if field.name != "output"]
    pairs = {name: (getattr(one.options, name), getattr(other.options, name)) for name in fields}
    pairs |= {"start": (one.start, other.start), "taught": (one.taught, other.taught)}
    return {name: mine for name, (mine, theirs) in pairs.items() if mine != theirs}


def test_names_are_those_of_the_folders_and_unique() -> None:
    found = runs(FOLDER)
    assert len({run.name for run in found}) == len(found)
    assert [run.options.output for run in found] == [FOLDER / run.name for run in found]


def test_what_others_begin_at_comes_first() -> None:
    names = [run.name for run in runs(FOLDER)]
    for position, run in enumerate(runs(FOLDER)):
        assert run.start is None or names.index(run.start) < position


def turn_of(seed: int) -> str:
    """The teacher that a seed begins at: they take turns."""
    return next(itertools.islice(itertools.cycle(f"teacher-{own}" for own in TEACHERS), seed, None))


@pytest.mark.parametrize("seed", TEACHERS)
def test_a_teacher_is_dense_and_begins_at_random_weights(seed: int) -> None:
    teacher = RUNS[f"teacher-{seed}"]
    assert teacher.options.seed == seed
    assert (teacher.start, teacher.taught, teacher.options.alternation) == (None, False, Alternation.NEVER)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_has_a_student_and_a_plain_model_that_begin_at_the_same_teacher(seed: int) -> None:
    student, plain = RUNS[f"student-{seed}"], RUNS[f"dense-{seed}"]
    assert {run.options.seed for run in (student, plain)} == {seed}
    assert student.start == plain.start == turn_of(seed)
    assert (student.taught, student.options.alternation) == (True, Alternation.BATCH)
    assert (plain.taught, plain.options.alternation) == (False, Alternation.NEVER)
    assert plain.options.recipe == student.options.recipe
    assert plain.options.data == student.options.data


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("densities-0", {"masses": None}),
        ("no-distillation-0", {"taught": False}),
        ("cls-0", {"score": Score.CLS}),
        ("epoch-0", {"alternation": Alternation.EPOCH}),
    ],
)
def test_an_ablation_differs_from_the_student_in_one_thing(name: str, change: dict[str, object]) -> None:
    assert differences(RUNS[name], RUNS["student-0"]) == change


def test_seeds_differ_in_the_seed_and_the_teacher_alone() -> None:
    for seed in TEACHERS[1:]:
        assert differences(RUNS[f"teacher-{seed}"], RUNS["teacher-0"]) == {"seed": seed}
    for seed in SEEDS[1:]:
        for name in ("student", "dense"):
            wanted = {"seed": seed} | ({"start": turn_of(seed)} if turn_of(seed) != "teacher-0" else {})
            assert differences(RUNS[f"{name}-{seed}"], RUNS[f"{name}-0"]) == wanted


def test_nothing_else_is_trained() -> None:
    own = {f"{name}-{seed}" for name in ("student", "dense") for seed in SEEDS}
    own |= {f"teacher-{seed}" for seed in TEACHERS}
    assert {run.start for run in RUNS.values()} == {None, *(f"teacher-{seed}" for seed in TEACHERS)}
    assert RUNS.keys() - own == {"densities-0", "no-distillation-0", "cls-0", "epoch-0"}


def test_composed_images_are_the_same_every_time_and_others_by_seed() -> None:
    (one, first), (again, second), (other, _) = (composed(CanvasOptions(), seed, 12) for seed in (5, 5, 6))
    assert len(one.images) == 12
    assert one.labels is not None and again.labels is not None
    first_images, same_images, other_images = (np.stack([*map(np.asarray, d.images)]) for d in (one, again, other))
    assert np.array_equal(first_images, same_images)
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(first_images, other_images)
    assert all(np.array_equal(a.of, b.of) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("canvas", [CanvasOptions(), LIGHT_CLUTTER, HEAVY_CLUTTER, TWO_OBJECTS])
def test_every_image_is_in_one_group_of_each_grouping(canvas: CanvasOptions) -> None:
    dataset, groupings = composed(canvas, 7, 60)
    assert len({grouping.name for grouping in groupings}) == len(groupings) == 3
    for grouping in groupings:
        assert grouping.of.shape == (len(dataset.images),)
        assert set(grouping.of) <= set(range(len(grouping.groups)))


def test_images_are_in_the_group_that_names_what_they_are_made_of() -> None:
    scenes = compose_scenes(Split.HELD_OUT, 60, 7)
    _, (sizes, fragments, background) = composed(CanvasOptions(), 7, 60)
    assert {grouping.name for grouping in (sizes, fragments, background)} == {"digit size", "fragments", "background"}
    for index, scene in enumerate(scenes):
        low, _, high, _ = sizes.groups[sizes.of[index]].split()
        assert float(low) <= scene.digit_scale < float(high)
        first, _, second = fragments.groups[fragments.of[index]].partition(" or ")
        assert scene.fragments >= int(first) if second == "more" else str(scene.fragments) in (first, second)
        assert background.groups[background.of[index]] == ("photograph" if scene.photograph else "shaded")
    assert all(len(set(grouping.of)) == len(grouping.groups) for grouping in (sizes, fragments, background))
