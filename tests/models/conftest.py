"""transformers, imported once, when a test wants it."""

from __future__ import annotations

import types

import pytest


@pytest.fixture(scope="module")
def transformers() -> types.ModuleType:
    """The library, which takes seconds to import: it is the reference, and no part of the product."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
