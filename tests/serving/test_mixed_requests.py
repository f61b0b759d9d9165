"""Over HTTP, under load: requests of all kinds share batches, and each answer has the point that it says."""

from __future__ import annotations

import http.client
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime import RunOptions, load
from sait_deploy.serving.batching import Stage
from sait_deploy.serving.options import ModelsOptions
from sait_deploy.serving.server import open_server
from tests.exported import IMAGE_SIZE
from tests.serving.served import Recorded, Served, served
from tests.tiny import random_batch

ADAPTIVE = "test_vit-96px-adaptive"
LADDER = ("wide", "mass0.6", "fast")
IMAGES, BUDGET = 4, 150
MASSES = np.array([0.2, 0.5, 0.8, 1.0], np.float32)
LIMITS = np.array([[1, 36], [3, 9], [20, 20], [5, 30]], np.int32)

KINDS: dict[str, tuple[dict[str, Any], dict[str, NDArray[Any]], PointChoice]] = {
    "no point": ({}, {}, PointChoice()),
    "dear point": ({"point": "wide"}, {}, PointChoice("wide")),
    "cheap point": ({"point": "fast"}, {}, PointChoice("fast")),
    "own mass": ({}, {"mass": MASSES}, PointChoice("wide", MASSES)),
    "own limits": ({}, {"keep_limits": LIMITS}, PointChoice("wide", None, LIMITS[:, 0], LIMITS[:, 1])),
    "both": (
        {"point": "fast"},
        {"mass": MASSES, "keep_limits": LIMITS},
        PointChoice(None, MASSES, LIMITS[:, 0], LIMITS[:, 1]),
    ),
}
"""What a request says, its tensors beside the images, and the point that a runner gives the same images."""


def infer(server: Served, pixels: NDArray[np.float32], kind: str) -> tuple[str, list[int], list[float]]:
    parameters, tensors, _ = KINDS[kind]
    given = {"images": pixels, **tensors}
    described = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": "INT32" if array.dtype == np.int32 else "FP32",
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in given.items()
    ]
    text = json.dumps({"inputs": described, "parameters": parameters}).encode()
    connection = http.client.HTTPConnection(server.address, timeout=60)
    headers = {"Inference-Header-Content-Length": str(len(text))}
    body = text + b"".join(array.tobytes() for array in given.values())
    connection.request("POST", f"/v2/models/{ADAPTIVE}/infer", body, headers)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, found
    outputs = {output["name"]: output["data"] for output in found["outputs"]}
    return found["parameters"]["point"], outputs["kept"], outputs["logits"]


def test_a_mix_of_requests_under_load(tiny_adaptive: Artifact) -> None:
    options = ModelsOptions(
        (tiny_adaptive.path,), threads=1, points=LADDER, degrade=True, target_p99_ms=2, token_budget=BUDGET, queue=1000
    )
    pixels = random_batch((IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE))
    kinds: list[str] = []
    answers: list[tuple[str, list[int], list[float]]] = []
    with served(options) as server, ThreadPoolExecutor(20) as pool:
        # On a fast machine the load has to last for a while before a cheaper point is taken.
        while len(kinds) < 1200 and {point for point, *_ in answers[:: len(KINDS)]} <= {"wide"}:
            more = list(itertools.islice(itertools.cycle(KINDS), 60))
            answers += pool.map(lambda kind: infer(server, pixels, kind), more)
            kinds += more
        batches, waiting = list(server.seen.batches), server.seen.waiting
    assert waiting == 0
    runner, given = load(tiny_adaptive, options=RunOptions(threads=1)), set()
    for kind, (point, kept, logits) in zip(kinds, answers, strict=True):
        choice = KINDS[kind][2]
        if kind == "no point":
            given.add(point)
            choice = PointChoice(point)
        else:
            assert point == (choice.point if kind.endswith(" point") else "request")
        alone = runner.run_at(pixels, choice)
        assert kept == alone.kept.tolist(), (kind, point)
        np.testing.assert_allclose(logits, alone.logits.ravel(), rtol=1e-3, atol=1e-4)
    assert given <= set(LADDER) and given != {"wide"}, "the load was to take a cheaper point"
    trunks = [(images, tokens) for stage, images, tokens in batches if stage is Stage.TRUNK]
    assert sum(images for images, _ in trunks) == IMAGES * len(kinds)
    assert all(tokens <= BUDGET or images == 1 for images, tokens in trunks)
    assert len(trunks) < len(kinds), "requests share batches"


@pytest.mark.parametrize("points", [LADDER, ("wide", "fast")])
def test_load_alone_takes_no_point_that_was_not_tuned(tiny_adaptive: Artifact, points: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match=f"point '{points[1]}' of .* was not tuned to a limit"):
        open_server(ModelsOptions((tiny_adaptive.path,), threads=1, points=points), Recorded())
