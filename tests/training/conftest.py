"""What several files of trainings share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared import made_once


@pytest.fixture(scope="session")
def folder() -> Path:
    """Squares of three colours: 48 to train on, 30 held out. Read it only."""
    from tests.training.small import squares

    return made_once("squares", squares)
