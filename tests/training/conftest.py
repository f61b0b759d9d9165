"""What several files of trainings share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares of three colours: 48 to train on, 30 held out. Read it only."""
    from tests.training.small import squares

    return squares(tmp_path_factory.mktemp("squares"))
