"""Runs every case and writes what came of them: ``python -m tests.hostile.report WORLD REPORT [KIND...]``.

Kinds that are not named keep what the report says of them, so that it can be made in parts.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.hostile import asking
from tests.hostile.case import FINE, Verdict
from tests.hostile.cases import all_cases


def judged(module: str, arguments: Iterable[str], names: Iterable[str]) -> list[dict[str, Any]]:
    """Returns what came of cases or requests, judged by a process of its own."""
    command = [sys.executable, "-m", f"tests.hostile.{module}", *arguments]
    done = subprocess.run(command, input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def outcomes_of(world: str, kinds: Iterable[str]) -> list[dict[str, Any]]:
    """Judges the cases of kinds, light and heavy ones in a process each, and requests."""
    found: list[dict[str, Any]] = []
    for heavy in (False, True):
        names = [case.name for case in all_cases() if case.kind in kinds and case.door.heavy == heavy]
        found += judged("judge", [world], names) if names else []
    return found + (judged("asking", [world], []) if asking.KIND in kinds else [])


def main(arguments: list[str]) -> int:
    """Judges, and counts verdicts by kind."""
    world, report = arguments[0], Path(arguments[1])
    harmless = {one.name: one.harmless for one in (*all_cases(), *asking.all_requests())}
    every = sorted({case.kind for case in all_cases()} | {asking.KIND})
    kinds = arguments[2:] or every
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    wrong = []
    outcomes = outcomes_of(world, kinds)
    for one in outcomes:
        accepted = one["verdict"] == Verdict.ANSWERED and not harmless[one["name"]]
        said = "accepted" if accepted else one["verdict"]
        counts[one["kind"]][said] += 1
        if accepted or one["verdict"] not in FINE:
            wrong.append({"kind": one["kind"], "name": one["name"], "came": said, "said": one["said"]})
    before = json.loads(report.read_text(encoding="utf-8")) if report.exists() and arguments[2:] else {}
    kept = {kind: found for kind, found in before.get("kinds", {}).items() if kind not in kinds and kind in every}
    made = {
        kind: {
            "counts": dict(sorted(counter.items())),
            "most_seconds": max(one["seconds"] for one in outcomes if one["kind"] == kind),
            "most_mebibytes": max(one["mebibytes"] for one in outcomes if one["kind"] == kind),
        }
        for kind, counter in counts.items()
    }
    wrong += [one for one in before.get("wrong", []) if one["kind"] in kept]
    document = {
        "command": "python -m tests.hostile.report WORLD FILE",
        "cases": sum(sum(one["counts"].values()) for one in (kept | made).values()),
        "missing": [kind for kind in every if kind not in kept | made],
        "wrong": wrong,
        "kinds": dict(sorted((kept | made).items())),
    }
    report.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
