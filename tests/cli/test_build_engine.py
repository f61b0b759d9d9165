"""``sait-deploy build-engine``, which has no builder yet."""

from __future__ import annotations

import pytest

from tests.cli.calls import Sait


@pytest.mark.parametrize("arguments", [[], ["artifacts/sait_demo_digits-dense"]])
def test_it_says_in_one_line_that_there_is_no_builder(process: Sait, arguments: list[str]) -> None:
    done = process("build-engine", *arguments)
    assert (done.code, done.out) == (3, "")
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert "no TensorRT builder" in line
