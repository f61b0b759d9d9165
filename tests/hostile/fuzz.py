"""Runs commands on manifests and graphs that hypothesis changes: ``python -m tests.hostile.fuzz SECONDS [SEED]``.

Each runs in a forked process, as the generator's cases do. The first that is neither answered nor refused in a line is
made as small as hypothesis can, shown, and ends the fuzzing.
"""

from __future__ import annotations

import collections
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import onnx
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.hostile.case import FINE, Case, Door
from tests.hostile.graphs import signed
from tests.hostile.judge import judge, prepare
from tests.hostile.mutations import changed_documents, changed_graphs
from tests.hostile.world import ADAPTIVE

_EXAMPLES: Final = 50
"""Of a round: the clock is looked at between rounds."""

_EXPLORING: Final = settings(derandomize=False, deadline=None, database=None, suppress_health_check=list(HealthCheck))
"""Other examples in each round, where the tests of a tree have the same each time."""

_DOORS: Final = (
    Door("inspect", ("inspect", ADAPTIVE), ""),
    Door("predict", ("predict", "image.png", "--artifact", ADAPTIVE), ""),
)


def fuzz(world: Path, scratch: Path, number: int, counts: collections.Counter[str]) -> None:
    """Runs a round with a seed; counts verdicts.

    Raises:
        AssertionError: a case is neither answered nor refused in a line.
    """
    manifest = json.loads((world / ADAPTIVE / "manifest.json").read_text(encoding="utf-8"))
    graph = onnx.load(str(world / ADAPTIVE / "model.onnx"))
    changes = st.one_of(changed_documents(manifest), changed_graphs(graph))

    @seed(number)
    @settings(_EXPLORING, max_examples=_EXAMPLES)
    @given(changes, st.sampled_from(_DOORS))
    def answered_or_refused(changed: Any, door: Door) -> None:
        def change(folder: Path) -> None:
            if isinstance(changed, onnx.ModelProto):
                signed(folder, changed)
            else:
                (folder / ADAPTIVE / "manifest.json").write_text(json.dumps(changed), encoding="utf-8")

        outcome = judge(Case("fuzz", "fuzz", door, change, True), world, scratch)
        counts[outcome.verdict] += 1
        assert outcome.verdict in FINE, outcome

    answered_or_refused()


def main(arguments: list[str]) -> int:
    """Fuzzes for some seconds, ten minutes where none are said, from a seed that it shows."""
    until = time.monotonic() + float(arguments[0] if arguments else 600)
    first = int(arguments[1]) if len(arguments) > 1 else secrets.randbits(32)
    print(f"seed {first}", file=sys.stderr)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as place:
        world, scratch = Path(place) / "world", Path(place) / "scratch"
        # In another process, as this one is to have no threads when it forks.
        subprocess.run([sys.executable, "-m", "tests.hostile.world", str(world)], check=True, stdout=sys.stderr)
        scratch.mkdir()
        prepare(heavy=False)
        number = 0
        while number == 0 or time.monotonic() < until:
            fuzz(world, scratch, first + number, counts)
            number += 1
    print(json.dumps({"seed": first, "rounds": number, **counts}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
