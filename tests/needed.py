"""What a test says that wants a GPU where there is none."""

from __future__ import annotations

import os
from typing import Final, NoReturn

import pytest

NEED_GPU: Final = "SAIT_DEPLOY_TESTS_NEED_GPU"


def no_gpu(reason: str) -> NoReturn:
    """Skips the test, or fails it where a GPU is said to be needed."""
    if os.environ.get(NEED_GPU) == "1":
        pytest.fail(f"{NEED_GPU} is 1, and {reason}")
    pytest.skip(f"{reason}; {NEED_GPU}=1 makes that a failure")
