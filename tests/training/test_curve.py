"""The picture of a training: loss and accuracies in plots of their own, whatever was measured."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.training.curve import training_curve

SVG = "{http://www.w3.org/2000/svg}"
EPOCHS = [1, 2, 3, 4]
LOSS = [2.0, 1.5, 1.25, 1.0]
ACCURACIES = {"dense": [40.0, 60.0, 70.0, 80.0], "density 0.3": [20.0, 50.0, 60.0, 75.0]}


def lines(root: ET.Element) -> list[list[list[tuple[float, float]]]]:
    """Returns the points of each line, by plot, the loss first."""
    # The first line of every tone is the plot's, and any later one of the accuracies' tones the legend's.
    drawn = [
        [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d") or "")]
        for group in root.findall(f"{SVG}g")
        for path in group
        if path.get("class") == "line" and "h30" not in (path.get("d") or "")
    ]
    split = plot_bottom(root)
    return [[line for line in drawn if line[0][1] <= split], [line for line in drawn if line[0][1] > split]]


def plot_bottom(root: ET.Element) -> float:
    """Returns where the first plot's x axis stands."""
    ticks = [re.match(r"M[-\d.]+ ([-\d.]+)v5", path.get("d") or "") for path in root.findall(f"{SVG}path")]
    return min(float(tick[1]) for tick in ticks if tick)


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_loss_and_accuracies_are_in_plots_of_their_own() -> None:
    root = ET.fromstring(training_curve(EPOCHS, LOSS, ACCURACIES, title="a student"))
    losses, accuracies = lines(root)
    assert [len(line) for line in losses] == [4]
    assert [len(line) for line in accuracies] == [4, 4]
    assert {"a student", "loss", "accuracy, %", "epoch", "dense", "density 0.3"} <= set(texts(root))


def test_it_goes_to_the_right_down_with_the_loss_and_up_with_accuracy() -> None:
    (loss,), accuracies = lines(ET.fromstring(training_curve(EPOCHS, LOSS, ACCURACIES)))
    assert [x for x, _ in loss] == sorted(x for x, _ in loss)
    assert [y for _, y in loss] == sorted(y for _, y in loss), "down is a larger y"
    for line in accuracies:
        assert [y for _, y in line] == sorted((y for _, y in line), reverse=True)
        assert [x for x, _ in line] == [x for x, _ in loss], "both plots have the same epochs below each other"


def test_values_stand_at_their_ticks() -> None:
    root = ET.fromstring(training_curve(EPOCHS, LOSS, ACCURACIES))
    places = [(t.text, float(t.get("y", "0")) - 5) for t in root.iter(f"{SVG}text") if t.get("class") == "end soft"]
    ((*_, last),), (dense, _) = lines(root)
    assert last[1] == pytest.approx(next(y for text, y in places if text == "1.0"), abs=0.1)
    assert dense[-1][1] == pytest.approx(next(y for text, y in places if text == "80"), abs=0.1)


def test_it_stands_alone_in_light_and_dark() -> None:
    root = ET.fromstring(training_curve(EPOCHS, LOSS, ACCURACIES))
    assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")
    assert root.find(f"{SVG}rect[@class='paper']") is not None


def test_what_was_not_measured_is_passed_over() -> None:
    root = ET.fromstring(training_curve(EPOCHS, LOSS, {"dense": [40.0, None, math.nan, 80.0], "never": [None] * 4}))
    _, accuracies = lines(root)
    assert [len(line) for line in accuracies] == [2]
    assert "never" not in texts(root)


def test_without_accuracies_there_is_only_the_loss() -> None:
    root = ET.fromstring(training_curve(EPOCHS, LOSS, {}))
    assert "accuracy, %" not in texts(root) and "loss" in texts(root)


def test_a_loss_that_is_not_finite_leaves_a_gap() -> None:
    root = ET.fromstring(training_curve(range(6), [2.0, 1.0, math.nan, math.inf, 0.5, 0.4], {}))
    losses, _ = lines(root)
    assert [len(line) for line in losses] == [2, 2]


def test_one_epoch_is_a_picture_and_none_is_an_error() -> None:
    root = ET.fromstring(training_curve([1], [2.0], {"dense": [50.0]}))
    marks = [path for path in root.iter(f"{SVG}path") if path.get("class") == "mark"]
    assert len(marks) == 3, "the loss, the accuracy, and the legend's"
    with pytest.raises(ValueError, match="at least one epoch"):
        training_curve([], [], {})


@pytest.mark.parametrize(("loss", "dense"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_sequences_of_other_lengths_are_an_error(loss: list[float], dense: list[float | None]) -> None:
    with pytest.raises(ValueError, match="a value for each of the 2"):
        training_curve([1, 2], loss, {"dense": dense})


def test_it_tells_how_training_ended_to_those_who_do_not_see_it() -> None:
    desc = ET.fromstring(training_curve(EPOCHS, LOSS, ACCURACIES)).findtext(f"{SVG}desc")
    assert desc == "Loss from 2 to 1. dense: 80.0 % at epoch 4. density 0.3: 75.0 % at epoch 4."


VALUES = st.floats(0, 1e4) | st.just(math.nan)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 1000),
    st.lists(st.tuples(VALUES, st.none() | st.floats(0, 100)), min_size=1, max_size=300),
    st.text(max_size=50),
)
def test_any_training_stays_inside(first: int, entries: list[tuple[float, float | None]], name: str) -> None:
    epochs = [first + index for index in range(len(entries))]
    accuracies = {name: [y for _, y in entries], "other": [y for _, y in entries]}
    root = ET.fromstring(training_curve(epochs, [x for x, _ in entries], accuracies, title=name))
    left, top, width, height = (float(part) for part in (root.get("viewBox") or "").split())
    places = [place for plot in lines(root) for line in plot for place in line]
    places += [(float(t.get("x", "0")), float(t.get("y", "0"))) for t in root.iter(f"{SVG}text")]
    assert all(left <= x <= left + width and top <= y <= top + height for x, y in places)
