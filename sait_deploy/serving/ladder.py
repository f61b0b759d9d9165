"""The point that follows the load: cheaper while images would wait too long, dearer again once that is affordable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_RISE: Final = 0.5
"""Share of the target that images may wait before a cheaper point is taken: the rest is for computing."""

_FALL: Final = 0.1
"""Share of the target below which they must wait before a dearer one is."""

_AFFORDABLE: Final = 0.75
"""Share of the time that the dearer point may take up at the present rate of arrivals."""

_SMOOTHING: Final = 0.2
"""Weight of the newest measurement of what an image costs."""

_LEAST_SECONDS: Final = 0.25
"""Time between a step and the next, however small the target is."""


class PointLadder:
    """Chooses among points from dear to cheap; every time is in seconds of one clock that never goes back.

    A cheaper point is taken as soon as images wait too long. The step back needs three things, so that points do not
    flap: little waiting, a while since the last step, and that the images that arrive would leave the dearer point idle
    for a part of the time, by what an image took when that point was used last.

    Args:
        points: names, from dear to cheap.
        target: the 99th percentile of latency to keep, seconds.
        now: when it begins.
    """

    def __init__(self, points: Sequence[str], target: float, now: float) -> None:
        self._points, self._target = tuple(points), target
        self._level = 0
        self._changed = now
        self._costs: list[float | None] = [None] * len(self._points)
        self._rates, self._counted = [0.0, 0.0], now
        self._settle = max(_LEAST_SECONDS, target / 2)
        self._hold = max(4 * _LEAST_SECONDS, 2 * target)
        # The larger of two counts: the longer window is steadier, the shorter one sees a new load sooner.
        self._windows = self._hold, 4 * self._hold

    @property
    def point(self) -> str:
        """The point to give now."""
        return self._points[self._level]

    def arrived(self, now: float, images: int) -> None:
        """Counts images that arrived."""
        self._decay(now)
        self._rates = [rate + images / window for rate, window in zip(self._rates, self._windows, strict=True)]

    def computed(self, point: str, seconds_per_image: float) -> None:
        """Takes note of what an image costs at a point, of batches that were computed there."""
        if point not in self._points:
            return
        level = self._points.index(point)
        known = self._costs[level]
        self._costs[level] = seconds_per_image if known is None else known + _SMOOTHING * (seconds_per_image - known)

    def update(self, now: float, wait: float) -> str:
        """Steps to a neighbouring point where the load asks for it, and returns the point to give.

        Args:
            now: the time.
            wait: how long an image that arrives now would wait, seconds.
        """
        self._decay(now)
        since = now - self._changed
        if wait > _RISE * self._target and self._level + 1 < len(self._points) and since >= self._settle:
            self._step(now, 1)
        elif wait < _FALL * self._target and self._level > 0 and since >= self._hold and self._affordable():
            self._step(now, -1)
        return self.point

    def _affordable(self) -> bool:
        cost = self._costs[self._level - 1]
        return cost is None or max(self._rates) * cost <= _AFFORDABLE

    def _step(self, now: float, by: int) -> None:
        self._level += by
        self._changed = now

    def _decay(self, now: float) -> None:
        passed = max(0.0, now - self._counted)
        self._rates = [
            rate * math.exp(-passed / window) for rate, window in zip(self._rates, self._windows, strict=True)
        ]
        self._counted = now
