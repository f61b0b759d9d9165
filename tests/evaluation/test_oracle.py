"""What images need, and the best choice for each: against a search of all choices, and refusals."""

from __future__ import annotations

import dataclasses
import itertools
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.answers import Answers
from sait_deploy.evaluation.evaluate import evaluate
from sait_deploy.evaluation.options import ORACLE_MASSES, EvaluateOptions
from sait_deploy.evaluation.oracle import LEAST_IMAGES, Ladder, Pair, oracle_of
from sait_deploy.evaluation.oracle_report import needed_plot, oracle_tables
from sait_deploy.evaluation.plot import accuracy_plot
from sait_deploy.evaluation.report import to_html, to_markdown
from sait_deploy.evaluation.results import from_json, to_json
from sait_deploy.evaluation.rows import Truth
from tests.evaluation.blotches import labelled_by, noise, small
from tests.exported import TinyExport

CLASSES = 3
COSTS = (10, 14, 21)
"""Of the steps; the last is dense."""

GRID = tuple(map(Decimal, ("0.1", "0.3", "0.6")))
ASKED = EvaluateOptions(oracle=GRID, lower_resolutions=(), threads=1)


def answers(classes: list[int], kept: int | list[int], macs: int | list[int]) -> Answers:
    """Answers of these classes."""
    top, n = np.array(classes, dtype=np.int64)[:, None], len(classes)
    return Answers(
        top,
        np.broadcast_to(np.array(kept, dtype=np.int32), n),
        np.broadcast_to(np.array(macs, dtype=np.int64), n),
        np.ones(n, dtype=np.float32),
        1.0,
        np.empty((n, 0), dtype=np.int32),
    )


def ladder_of(rows: list[list[int]], labels: list[int] | None) -> Ladder:
    """A ladder of these answers, a row a step, dense last."""
    steps = [answers(row, index + 1, cost) for index, (row, cost) in enumerate(zip(rows, COSTS, strict=True))]
    truth = Truth(None if labels is None else np.array(labels), steps[-1], CLASSES)
    return Ladder(truth, steps[:-1])


def test_an_image_needs_the_first_step_from_which_on_its_answer_stays() -> None:
    ladder = ladder_of([[0, 1, 2, 0], [0, 0, 2, 1], [0, 1, 0, 2]], [0, 1, 0, 0])
    assert ladder.needed_for_dense.tolist() == [0, 2, 2, 2]
    assert ladder.needed_for_right.tolist() == [0, 2, 2, 3]


IMAGE = st.lists(st.integers(0, CLASSES - 1), min_size=len(COSTS), max_size=len(COSTS))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(IMAGE, st.integers(0, CLASSES - 1)), min_size=1, max_size=5), st.integers(10, 21))
def test_no_other_choice_of_that_cost_is_better(images: list[tuple[list[int], int]], budget: int) -> None:
    rows = [list(step) for step in zip(*(image for image, _ in images), strict=True)]
    unlabelled, labelled = ladder_of(rows, None), ladder_of(rows, [label for _, label in images])
    steps, numbers = range(len(COSTS)), range(len(images))

    def most(good: list[list[bool]]) -> int:
        choices = itertools.product(steps, repeat=len(images))
        within = (choice for choice in choices if sum(COSTS[step] for step in choice) <= budget * len(images))
        return max(sum(good[image][step] for image, step in enumerate(choice)) for choice in within)

    kept = int(unlabelled.keeping(float(budget)).sum())
    needed = unlabelled.needed_for_dense
    best = most([[step >= needed[image] for step in steps] for image in numbers])
    at_first = sum(rows[0][image] == rows[-1][image] and needed[image] > 0 for image in numbers)
    assert best <= kept <= best + at_first  # an answer that is dense's by chance at the first step counts, too

    stays, chance = labelled.needed_for_right, labelled.right[0]
    right = [[step >= stays[image] or (step == 0 and bool(chance[image])) for step in steps] for image in numbers]
    assert labelled.knowing(float(budget)).sum() == most(right)


def test_labels_do_not_change_which_answers_are_kept_and_knowing_them_is_never_worse() -> None:
    chance = np.random.default_rng(0)
    rows = chance.integers(0, CLASSES, (len(COSTS), 400)).tolist()
    ladder = ladder_of(rows, chance.integers(0, CLASSES, 400).tolist())
    for budget in (10.0, 13.0, 17.0, 21.0):
        assert ladder.knowing(budget).sum() >= ladder.keeping(budget).sum()
    assert np.array_equal(ladder.keeping(21.0), ladder.right[-1])
    assert np.array_equal(ladder.keeping(10.0), ladder.right[0])


def test_a_mass_that_gives_each_image_what_it_needs_reaches_all_of_the_bound() -> None:
    few = [0] * 50 + [1] * 50
    rows = [few, [0] * 100, [0] * 100]
    ladder = ladder_of(rows, [0] * 100)
    mass = answers([0] * 100, [1] * 50 + [2] * 50, [10] * 50 + [14] * 50)
    pair = Pair("mass0.9", mass, "kept1", ladder.steps[0])

    (found,) = oracle_of(ladder.truth, ladder.steps[:-1], [pair]).masses

    assert found.reached_percent == 100.0
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.enough_percent == 100.0
    assert found.images == ((1, 1, 50), (2, 2, 50))
    cheap = dataclasses.replace(mass, macs=np.full(100, 9))
    assert oracle_of(ladder.truth, ladder.steps[:-1], [pair._replace(mass_answers=cheap)]).masses == ()


def test_every_figure_of_steps_and_masses_by_hand() -> None:
    """Four images need 1, 3, 3 and 3 tokens; dense has the last wrong, which is right with 1 token by chance."""
    ladder = ladder_of([[0, 1, 2, 0], [0, 0, 2, 1], [0, 1, 0, 2]], [0, 1, 0, 0])
    mass = answers([0, 1, 0, 0], [1, 1, 3, 3], [10, 10, 15, 21])

    found = oracle_of(ladder.truth, ladder.steps[:-1], [Pair("mass", mass, "kept2", ladder.steps[1])])

    assert found.needed_mean == 2.5
    assert [(step.kept, step.macs, step.right_percent) for step in found.steps] == [
        (1, 10, 75),
        (2, 14, 25),
        (3, 21, 75),
    ]
    assert [(step.stays_percent, step.stays_right_percent) for step in found.steps] == [(25, 25), (25, 25), (100, 75)]
    assert [step.best.right_percent for step in found.steps] == [75, 75, 75]
    assert [step.best_by_label.right_percent for step in found.steps if step.best_by_label] == [75, 100, 100]
    assert [step.best.gain.value for step in found.steps] == [0, 50, 0]
    (one,) = found.masses
    assert (one.row, one.density, one.gain.value, one.best.gain.value) == ("mass", "kept2", 75, 50)
    assert one.best_by_label is not None and one.best_by_label.gain.value == 75
    assert one.best.gain.low < 0 and one.reached_percent is None, "of four images it is not clear"
    assert one.enough_percent == 75
    assert one.images == ((1, 1, 1), (3, 1, 1), (3, 3, 2))
    least = oracle_of(ladder.truth, ladder.steps[:-1], [Pair("a", ladder.steps[0], "b", ladder.steps[0])])
    assert len(least.masses) == 1, "a mass that costs what the first step costs is compared"


def test_an_evaluation_with_its_oracle_in_every_format() -> None:
    model = small()
    found = evaluate(model, labelled_by(model, LEAST_IMAGES), ASKED)

    assert found.oracle is not None
    assert [step.kept for step in found.oracle.steps] == [2, 5, 10, 16]
    assert found.oracle.steps[-1].stays_percent == 100.0
    assert found.oracle.steps[-1].best.gain.value == 0.0
    assert {one.row for one in found.oracle.masses} <= {point.name for point in ORACLE_MASSES}
    assert all(sum(n for *_, n in one.images) == LEAST_IMAGES for one in found.oracle.masses)
    rows = {row.id: row for row in found.rows}
    assert rows["kept5"].top1_percent == found.oracle.steps[1].right_percent
    assert from_json(to_json(found)) == found
    assert len(oracle_tables(found)) == 2
    assert "What images need" in to_markdown(found)
    assert "tokens that images need, and keep" in to_html(found)
    assert "bound: the best choice for each image" in accuracy_plot(found)
    assert needed_plot(found) == needed_plot(found)


def test_without_labels_the_bound_is_of_agreement() -> None:
    found = evaluate(small(), dataclasses.replace(noise(LEAST_IMAGES), labels=None), ASKED)
    assert found.oracle is not None
    assert all(step.best_by_label is None and step.stays_right_percent is None for step in found.oracle.steps)
    assert "answers are compared with dense's" in " ".join(note.text for note in found.notes)
    assert "points of agreement" in to_markdown(found)


def test_a_report_without_oracle_does_not_mention_one() -> None:
    found = evaluate(small(), noise(20), dataclasses.replace(ASKED, oracle=()))
    assert found.oracle is None and "oracle" not in to_json(found)


def test_an_adaptive_artifact_is_asked_by_its_limits(tiny_adaptive: Artifact) -> None:
    size = tiny_adaptive.manifest.model.image_size[0]
    dataset = noise(LEAST_IMAGES, size, tiny_adaptive.manifest.model.classes)
    found = evaluate(tiny_adaptive, dataset, ASKED)
    assert found.oracle is not None and found.oracle.steps[-1].stays_percent == 100.0


def test_what_no_oracle_can_be_asked_of(tiny: TinyExport) -> None:
    with pytest.raises(InvalidArgument, match=f"needs {LEAST_IMAGES} images or more, not {LEAST_IMAGES - 1}"):
        evaluate(small(), noise(LEAST_IMAGES), dataclasses.replace(ASKED, limit=LEAST_IMAGES - 1))
    with pytest.raises(InvalidArgument, match="operating point of this artifact is fixed"):
        evaluate(tiny.dense, noise(LEAST_IMAGES, tiny.dense.manifest.model.image_size[0], 5), ASKED)
    with pytest.raises(InvalidArgument, match="the model is headless"):
        evaluate(small(num_classes=0), noise(LEAST_IMAGES), ASKED)
    with pytest.raises(InvalidArgument, match="is given twice"):
        EvaluateOptions(oracle=(Decimal("0.3"), Decimal("0.30")))
