"""What Ray Serve calls the server."""

from __future__ import annotations

from typing import Final

APPLICATION: Final = "sait-deploy"
"""The application."""

DEPLOYMENT: Final = "Models"
"""Its deployment."""
