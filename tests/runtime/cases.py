"""What tests of runners run."""

from __future__ import annotations

from typing import Final

from sait_deploy.runtime import RunOptions
from tests.exported import IMAGE_SIZE
from tests.tiny import random_batch

RUNTIMES: Final = ("onnxruntime", "torch")
ONE_THREAD: Final = RunOptions(threads=1)
SHAPE: Final = (3, IMAGE_SIZE, IMAGE_SIZE)
KEPT, PATCHES = 18, 36
GOOD: Final = random_batch((2, *SHAPE))
