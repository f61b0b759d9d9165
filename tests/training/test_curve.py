"""The picture of a training: loss and accuracies in plots of their own, whatever was measured."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.training.curve import training_curve

SVG = "{http://www.w3.org/2000/svg}"
EPOCHS = [1, 2, 3, 4]
LOSS = [2.0, 1.5, 1.25, 1.0]
ACCURACIES = {"dense": [40.0, 60.0, 70.0, 80.0], "density 0.3": [20.0, 50.0, 60.0, 75.0]}


def texts(svg: str) -> set[str]:
    return {element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")}


def test_loss_and_accuracies_are_in_plots_of_their_own() -> None:
    found = texts(training_curve(EPOCHS, LOSS, ACCURACIES, title="a student"))
    assert {"a student", "loss", "accuracy, %", "epoch", "dense", "density 0.3", *map(str, EPOCHS)} <= found


def test_what_was_never_measured_is_left_out() -> None:
    found = texts(training_curve(EPOCHS, LOSS, {"dense": [40.0, None, math.nan, 80.0], "never": [None] * 4}))
    assert "never" not in found and "dense" in found
    alone = texts(training_curve(EPOCHS, LOSS, {}))
    assert "accuracy, %" not in alone and "loss" in alone


def test_one_epoch_is_a_picture_and_none_is_an_error() -> None:
    assert "dense" in texts(training_curve([1], [2.0], {"dense": [50.0]}))
    with pytest.raises(ValueError, match="at least one epoch"):
        training_curve([], [], {})


@pytest.mark.parametrize(("loss", "dense"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_sequences_of_other_lengths_are_an_error(loss: list[float], dense: list[float | None]) -> None:
    with pytest.raises(ValueError, match="a value for each of the 2"):
        training_curve([1, 2], loss, {"dense": dense})


def test_it_tells_how_training_ended_to_those_who_do_not_see_it() -> None:
    desc = ET.fromstring(training_curve(EPOCHS, LOSS, ACCURACIES)).findtext(f"{SVG}desc")
    assert desc == "Loss from 2 to 1. dense: 80.0 % at epoch 4. density 0.3: 75.0 % at epoch 4."
    gone = ET.fromstring(training_curve([1], [math.nan], {})).findtext(f"{SVG}desc")
    assert gone == "No loss is finite."


VALUES = st.floats(0, 1e4) | st.just(math.nan)


@settings(deadline=None, max_examples=10)
@given(
    st.integers(0, 1000),
    st.lists(st.tuples(VALUES, st.none() | st.floats(0, 100)), min_size=1, max_size=60),
    st.text(max_size=50),
)
def test_any_training_is_a_picture(first: int, entries: list[tuple[float, float | None]], name: str) -> None:
    epochs = [first + index for index in range(len(entries))]
    accuracies = {name: [y for _, y in entries], "other": [y for _, y in entries]}
    ET.fromstring(training_curve(epochs, [x for x, _ in entries], accuracies, title=name))
