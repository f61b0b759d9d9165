"""Listening to a build in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sait_deploy.engine.builder import BuildContext, build
from sait_deploy.engine.request import BuildEvent, BuildRequest, PartAnswer
from tests.engine.cases import TRT, attention_graph, request_for


class Heard:
    """What a build said, and when it is to stop."""

    def __init__(self, stop_at: float = 2.0) -> None:
        self.events: list[BuildEvent] = []
        self.stop_at = stop_at
        self.context = BuildContext(self.events.append, self._stopped)

    def _stopped(self) -> bool:
        return any(share >= self.stop_at for _, share in self.progress)

    @property
    def progress(self) -> list[tuple[str, float]]:
        return [event.progress for event in self.events if event.progress is not None]

    @property
    def answers(self) -> list[PartAnswer]:
        return [event.answer for event in self.events if event.answer is not None]

    @property
    def warnings(self) -> list[str]:
        return [event.warning for event in self.events if event.warning is not None]


def asked(folder: Path, **changes: Any) -> BuildRequest:
    """Asks TensorRT for two engines, ``model`` and ``stem``."""
    return request_for(folder, attention_graph(), attention_graph(), **{"builder": TRT, "targets": (), **changes})


def built(request: BuildRequest) -> Heard:
    heard = Heard()
    build(request, heard.context)
    return heard
