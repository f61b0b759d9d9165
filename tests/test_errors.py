"""What is told of an error of others: one line, and in it the reason."""

from __future__ import annotations

import traceback

import pytest

from sait_deploy.errors import first_line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no such file", "no such file"),
        ("no such file\nsee above", "no such file"),
        ("\n  no such file\n", "no such file"),
        ("it cannot be joined:\nthe port is closed\nsee above", "it cannot be joined: the port is closed"),
        ("it cannot be joined:", "it cannot be joined:"),
        ("", "OSError"),
        (" \n", "OSError"),
    ],
)
def test_the_first_line_that_says_something(text: str, said: str) -> None:
    assert first_line(OSError(text)) == said


def test_of_a_traceback_the_reason_is_told_and_not_the_calls() -> None:
    try:
        int("ten")
    except ValueError as error:
        said = f"it cannot be joined:\n{traceback.format_exc()}"
        assert first_line(OSError(said)) == f"it cannot be joined: ValueError: {error}"
