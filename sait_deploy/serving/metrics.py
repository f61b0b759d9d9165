"""Metrics for Prometheus, kept by Ray: each replica counts, and each machine's agent has the sum of its replicas."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any, Final

from sait_deploy.serving.batching import Stage
from sait_deploy.serving.model import Answer
from sait_deploy.serving.refusals import Status

PREFIX: Final = "sait_deploy_"
_AS_EXPORTED: Final = f"ray_{PREFIX}"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64)
_TOKENS: Final = (50, 100, 200, 400, 800, 1600, 3200, 6400, 12800)
_READ_SECONDS: Final = 5


class RayMetrics:
    """An observer whose figures Ray exports."""

    def __init__(self) -> None:
        from ray.serve import metrics

        def histogram(name: str, what: str, bounds: tuple[float, ...], *tags: str) -> Any:
            return metrics.Histogram(PREFIX + name, what, list(bounds), ("model", *tags))

        self._waiting = metrics.Gauge(f"{PREFIX}queue_images", "Images that wait or are computed.", ("model",))
        self._wait = metrics.Gauge(f"{PREFIX}queue_seconds", "How long the next image would wait.", ("model",))
        self._answers = metrics.Counter(f"{PREFIX}answered_images", "Images answered.", ("model", "point"))
        self._refusals = metrics.Counter(f"{PREFIX}refused_requests", "Requests without an answer.", ("status",))
        self._images = histogram("batch_images", "Images of a batch.", _IMAGES, "stage")
        self._tokens = histogram("batch_tokens", "Tokens of a batch after the seam.", _TOKENS)
        self._seconds = histogram("batch_seconds", "Seconds that a batch was computed.", _SECONDS, "stage")
        self._kept = histogram("kept_tokens", "Patch tokens that an image kept.", _TOKENS, "point")
        self._latency = histogram("latency_seconds", "Seconds from a request to its answer.", _SECONDS, "point")

    def queued(self, model: str, images: int, wait: float) -> None:
        """So many images wait, and one that arrived now would wait so many seconds."""
        self._waiting.set(images, {"model": model})
        self._wait.set(wait, {"model": model})

    def computed(self, model: str, batch: Stage, images: int, tokens: int, seconds: float) -> None:
        """A batch was computed."""
        self._images.observe(images, {"model": model, "stage": batch.value})
        self._seconds.observe(seconds, {"model": model, "stage": batch.value})
        if tokens:
            self._tokens.observe(tokens, {"model": model})

    def answered(self, model: str, answer: Answer, seconds: float) -> None:
        """A request was answered."""
        tags = {"model": model, "point": answer.point}
        self._answers.inc(len(answer.images), tags)
        self._latency.observe(seconds, tags)
        for image in answer.images:
            self._kept.observe(image.kept, tags)

    def refused(self, status: Status) -> None:
        """A request got no answer."""
        self._refusals.inc(1, {"status": status.name.lower()})


async def exported_metrics() -> str:
    """Returns what this machine's agent exports of the server, in Prometheus' text format."""
    return await asyncio.to_thread(_read)


def _read() -> str:
    import ray

    own = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == own)
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    # The agent is on this machine: no proxy that the environment may name is asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=_READ_SECONDS) as response:
        text: str = response.read().decode()
    named = (
        line
        for line in text.splitlines()
        if line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(_AS_EXPORTED)
    )
    return "".join(f"{line}\n" for line in named)
