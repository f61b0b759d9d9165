"""Fuzzing: ``python -m tests.hostile.fuzz SECONDS`` runs commands on manifests and graphs that hypothesis changes.

Each runs in a forked process, as the generator's cases do. The first that is neither answered nor refused in a line is
made as small as hypothesis can, shown, and ends the fuzzing.
"""

from __future__ import annotations

import collections
import json
import os
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

_DOORS: Final = (
    Door("inspect", ("inspect", ADAPTIVE), ""),
    Door("predict", ("predict", "image.png", "--artifact", ADAPTIVE), ""),
)


def fuzz(world: Path, scratch: Path, number: int, counts: collections.Counter[str]) -> None:
    """Runs a round, whose number is its seed; counts verdicts.

    Raises:
        AssertionError: a case is neither answered nor refused in a line.
    """
    manifest = json.loads((world / ADAPTIVE / "manifest.json").read_text(encoding="utf-8"))
    graph = onnx.load(str(world / ADAPTIVE / "model.onnx"))
    changes = st.one_of(changed_documents(manifest), changed_graphs(graph))

    @seed(number)
    @settings(max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
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
    """Fuzzes for some seconds, ten minutes where none are said."""
    until = time.monotonic() + float(arguments[0] if arguments else 600)
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
            fuzz(world, scratch, number, counts)
            number += 1
    print(json.dumps({"rounds": number, **counts}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
