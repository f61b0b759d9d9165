"""``-q`` and ``-v``: what is said on stderr; results are the same."""

from __future__ import annotations

import logging
import re

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from tests.cli.calls import Sait


@pytest.fixture
def predict(tiny_adaptive: Artifact) -> tuple[object, ...]:
    return "predict", demo.IMAGES / "7", "--artifact", tiny_adaptive.path, "--threads", "1"


def test_quiet_says_results_alone(sait: Sait, predict: tuple[object, ...]) -> None:
    usual, quiet = sait(*predict), sait(*predict, "-q")
    assert usual.code == quiet.code == 0
    assert usual.out == quiet.out
    assert usual.err and usual.following
    assert (quiet.err, quiet.following) == ("", "")


def test_quiet_says_what_is_wrong(sait: Sait) -> None:
    assert len(sait("predict", "nowhere.png", "--quiet").err.splitlines()) == 2


def test_verbose_logs_every_step_with_the_time(sait: Sait, predict: tuple[object, ...]) -> None:
    handlers = list(logging.getLogger("sait_deploy").handlers)
    done = sait(*predict, "-v")
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert lines and all(re.match(r"\d{4}-\d\d-\d\d [\d:,]+ (INFO|DEBUG) sait_deploy: ", line) for line in lines)
    assert logging.getLogger("sait_deploy").handlers == handlers


def test_both_are_refused(sait: Sait, predict: tuple[object, ...]) -> None:
    done = sait(*predict, "-q", "-v")
    assert done.code == 2
    assert done.err.splitlines()[0] == "error: --quiet and --verbose exclude each other"
