"""Candidates with figures that tests choose."""

from __future__ import annotations

from sait_deploy.bench.results import AccuracyMeasure
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.recommending.results import Candidate, Drop


def make_drop(points: float, within: float = 0.1) -> Drop:
    """Makes a drop whose interval reaches so far to both sides."""
    return Drop(AccuracyMeasure.TOP1, 1500, Estimate(points - within, points, points + within))


def make_candidate(
    name: str, speed: float, drop: Drop | None = None, memory: int | None = None, latency: float | None = None
) -> Candidate:
    """Makes a candidate that takes ``latency`` ms a request, or as long as its speed says."""
    percent = None if drop is None else 90 - drop.points.value
    return Candidate(
        variant=name,
        label=name,
        runtime="onnxruntime",
        precision="fp32",
        baseline=name == "dense",
        accuracy_percent=percent,
        drop=drop,
        latency_ms=1e3 / speed if latency is None else latency,
        p99_ms=2e3 / speed,
        images_per_second=100 * speed,
        speedup=speed,
        memory_bytes=memory,
    )
