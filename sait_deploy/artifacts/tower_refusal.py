"""Refuses image towers where one answer for each image is needed."""

from __future__ import annotations

from sait_deploy.artifacts.points import Described
from sait_deploy.errors import InvalidArgument


def refuse_tower(description: Described, command: str) -> None:
    """Refuses an image tower where one answer for each image is needed.

    Args:
        description: an artifact's manifest, or the description of a model in memory.
        command: what needs the answers.

    Raises:
        InvalidArgument: it is an image tower.
    """
    if description.model.tower is not None:
        raise InvalidArgument(
            f"{description.name} is an image tower, which answers tokens: {command} needs one answer for each image",
            "take the tokens by sait_deploy.load(...).run(images); bench measures their speed",
        )
