"""What the server takes beside the runner: throughput at batch 8 through HTTP against the same batches in process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving_client import OK, Client, Target
from benchmarks.serving_costs import runner_seconds
from benchmarks.serving_process import Running
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.runtime import RunOptions
from sait_deploy.runtime.registry import ONNXRUNTIME
from sait_deploy.serving.stages import open_stages
from sait_deploy.system.processors import processors

BATCH: Final = 8
MOST_OVERHEAD: Final = 0.15
CALLERS: Final = {1: 3 * BATCH, BATCH: 3}
"""Images of a request to requests on their way, so that the next batch of eight waits while one is computed."""


def overheads(
    running: Running,
    artifacts: dict[str, Artifact],
    images: NDArray[np.float32],
    kept: int,
    threads: int,
    seconds: float,
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Compares throughput, runner and server in turns.

    Args:
        running: a server of the artifacts.
        artifacts: by what to call them.
        images: float32 [n, C, H, W].
        kept: patch tokens of every image of an adaptive one.
        threads: of the runner, as of the server.
        seconds: of each turn.
        rounds: turns of each.
        say: is told what was found.
    """
    rows = []
    for name, artifact in artifacts.items():
        stages = open_stages(artifact, ONNXRUNTIME, RunOptions(threads=threads))
        forced = artifact.manifest.pruning is not None and not stages.whole
        target = Target(running.address, artifact.path.name, forced)
        for size, callers in CALLERS.items():
            client = Client(target, images, np.array([kept]), size)
            asyncio.run(client.closed_loop(callers, seconds))
            ratios, shares, taken = [], [], []
            for _ in range(rounds):
                alone = BATCH / runner_seconds(stages, images, kept if forced else None, BATCH, seconds)
                before = running.processor_seconds()
                load = asyncio.run(client.closed_loop(callers, seconds))
                answered = sum(outcome.status == OK and outcome.right for outcome in load.outcomes) * size
                ratios.append(answered / load.seconds / alone)
                shares.append(load.client_share)
                taken.append((running.processor_seconds() - before) / load.seconds / processors())
            ratio = float(np.median(ratios))
            say(f"{name}, {size} images a request: {ratio:.2f} of the runner's throughput")
            rows.append(
                {
                    "artifact": name,
                    "images_per_request": size,
                    "throughput_over_runner": ratio,
                    "each_round": ratios,
                    "client_share": float(np.median(shares)),
                    "server_share": float(np.median(taken)),
                    "reached": ratio >= 1 - MOST_OVERHEAD,
                }
            )
    return {"batch": BATCH, "most_overhead": MOST_OVERHEAD, "rows": rows}
