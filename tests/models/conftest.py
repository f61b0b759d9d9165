"""transformers, imported once, when a test wants it, and where to save weights."""

from __future__ import annotations

import types
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def transformers() -> types.ModuleType:
    """The library, which takes seconds to import: it is the reference, and no part of the product."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Where to save a file of weights."""
    return tmp_path / "weights.pth"
