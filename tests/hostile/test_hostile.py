"""Whatever a file holds, a command answers or refuses it in a line: never anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sait_deploy.engine.trust import TRUST_FLAG
from tests.hostile.asked import Asked
from tests.hostile.asking import all_requests
from tests.hostile.case import FINE, Case, Verdict
from tests.hostile.cases import all_cases

ROOT = Path(__file__).parents[2]
PARTS = {False: 6, True: 3}
"""In how many tests the light and the heavy cases are judged, so that all workers have some."""


def judged(cases: Iterable[Case | Asked], world: Path, module: str = "judge") -> list[dict[str, Any]]:
    """What came of cases or requests, judged by another process, as this one may have threads."""
    names = "\n".join(case.name for case in cases)
    done = subprocess.run(
        [sys.executable, "-m", f"tests.hostile.{module}", str(world)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))},
        input=names,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def wrong(outcomes: Iterable[dict[str, Any]]) -> list[str]:
    harmless = {one.name: one.harmless for one in (*all_cases(), *all_requests())}
    return [
        f"{one['name']}: {one['verdict']}: {one['said']}"
        for one in outcomes
        if one["verdict"] not in FINE or (one["verdict"] == Verdict.ANSWERED and not harmless[one["name"]])
    ]


def test_quick_cases(world: Path) -> None:
    chosen = [case for case in all_cases() if case.quick]
    outcomes = judged(chosen, world)
    assert len(outcomes) == len(chosen) > 60
    assert wrong(outcomes) == []
    # Of an engine whose files are in order, nothing but who built it is left to refuse: the cases reach that check.
    engines = [one for one in outcomes if one["name"].startswith("engine/whole/")]
    assert len(engines) == 3
    for one in engines:
        assert ("was not built here by this user" if one["exit_code"] == 0 else TRUST_FLAG) in one["said"], one


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heavy", "part"),
    [
        pytest.param(heavy, part, id=f"{'heavy' if heavy else 'light'}{part}")
        for heavy in PARTS
        for part in range(PARTS[heavy])
    ],
)
def test_all_other_cases(world: Path, heavy: bool, part: int) -> None:
    others = [case for case in all_cases() if not case.quick and case.door.heavy == heavy]
    # Neighbours are of a kind, whose imports a judge makes once.
    first, end = (len(others) * number // PARTS[heavy] for number in (part, part + 1))
    chosen = others[first:end]
    outcomes = judged(chosen, world)
    assert len(outcomes) == len(chosen) > 0
    assert wrong(outcomes) == []


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_requests_to_the_server(world: Path, every: int) -> None:
    for package in ("uvicorn", "grpc"):
        pytest.importorskip(package, reason="the server needs Ray, which brings it and has no wheel here")
    chosen = all_requests()[::every]
    outcomes = judged(chosen, world, "asking")
    assert len(outcomes) == len(chosen) > 0
    assert wrong(outcomes) == []
