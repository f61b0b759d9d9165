"""The command line in this process, as its own tests call it."""

from tests.cli.conftest import sait

__all__ = ["sait"]
