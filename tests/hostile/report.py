"""Runs every case and writes what came of them: ``python -m tests.hostile.report WORLD REPORT [KIND...]``."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path

from tests.hostile.case import FINE, Verdict
from tests.hostile.cases import all_cases


def main(arguments: list[str]) -> int:
    """Judges cases, light and heavy ones in a process each, and counts verdicts by kind."""
    world, report, kinds = arguments[0], Path(arguments[1]), arguments[2:]
    known = {case.name: case for case in all_cases() if not kinds or case.kind in kinds}
    outcomes = []
    for heavy in (False, True):
        names = "\n".join(name for name, case in known.items() if case.door.heavy == heavy)
        command = [sys.executable, "-m", "tests.hostile.judge", world]
        done = subprocess.run(command, input=names, stdout=subprocess.PIPE, text=True, check=True)
        outcomes += [json.loads(line) for line in done.stdout.splitlines()]
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    wrong = []
    for one in outcomes:
        accepted = one["verdict"] == Verdict.ANSWERED and not known[one["name"]].harmless
        said = "accepted" if accepted else one["verdict"]
        counts[one["kind"]][said] += 1
        if accepted or one["verdict"] not in FINE:
            wrong.append({"name": one["name"], "came": said, "said": one["said"]})
    document = {
        "command": " ".join(["python -m tests.hostile.report WORLD", *arguments[1:]]),
        "cases": len(outcomes),
        "wrong": wrong,
        "counts": {kind: dict(sorted(counter.items())) for kind, counter in sorted(counts.items())},
        "most_seconds": max(one["seconds"] for one in outcomes),
        "most_mebibytes": max(one["mebibytes"] for one in outcomes),
    }
    report.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
