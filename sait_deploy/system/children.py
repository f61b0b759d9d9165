"""The environment of processes that the toolkit starts of itself."""

from __future__ import annotations

import os
from pathlib import Path


def child_environment() -> dict[str, str]:
    """Returns another process's environment; a checkout is found there too, where nothing is installed."""
    root, known = Path(__file__).parents[2], os.environ.get("PYTHONPATH", "")
    if not (root / "pyproject.toml").is_file():
        return dict(os.environ)
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), known]))}
