"""What tests of runners run."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sait_deploy.runtime import RunOptions
from tests.exported import IMAGE_SIZE, POINTS
from tests.tiny import random_batch

RUNTIMES: Final = ("onnxruntime", "openvino", "torch")
ONE_THREAD: Final = RunOptions(threads=1)
SHAPE: Final = (3, IMAGE_SIZE, IMAGE_SIZE)
KEPT, PATCHES = 18, 36
GOOD: Final = random_batch((2, *SHAPE))
COUNT: Final = 6
CHOICES: Final[list[dict[str, Any]]] = [
    {},
    *({"point": request.name} for request in POINTS),
    {"mass": 0.45},
    {"mass": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]},
    {"min_keep": [1, 3, 5, 36, 9, 11], "max_keep": [2, 3, 6, 36, 12, 11]},
    {"point": "fast", "max_keep": np.arange(4, 10)},
    {"point": "wide", "mass": 2.0, "max_keep": 30},
    {"mass": 1},
    {"mass": 0, "max_keep": 1},
]
"""Points that an adaptive artifact is asked for, for batches of ``COUNT`` images."""
