"""Engines that tests build and run: of either TensorRT, in every form that it can be built in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from sait_deploy.engine.cuda import device
from sait_deploy.engine.options import (
    TARGETS,
    AttentionChoice,
    BatchRange,
    BuilderChoice,
    EngineOptions,
    PluginChoice,
)
from sait_deploy.engine.packages import PACKAGES, BuilderName
from sait_deploy.errors import SaitError
from tests.needed import no_gpu

BATCH: Final = BatchRange(2, 4, 8)
FORMS: Final = ("dense", "density", "adaptive")
PRUNED: Final = FORMS[1:]


@dataclass(frozen=True)
class EngineCase:
    """An engine of a form of the small model: how it is built, and so by which runtime it is run."""

    kind: str
    form: str
    options: EngineOptions

    @property
    def builder(self) -> BuilderName:
        return BuilderName(self.options.builder.value)

    @property
    def runtime(self) -> str:
        return self.builder.value

    def __str__(self) -> str:
        return f"{self.runtime}{self.kind}-{self.form}"


RTX: Final = EngineOptions(BuilderChoice.TENSORRT_RTX, batch=BATCH)
FULL: Final = {
    "": (FORMS, EngineOptions(BuilderChoice.TENSORRT, batch=BATCH)),
    "-no-plugin": (PRUNED, EngineOptions(BuilderChoice.TENSORRT, batch=BATCH, plugin=PluginChoice.NEVER)),
    "-packed": (
        ("adaptive",),
        EngineOptions(BuilderChoice.TENSORRT, batch=BATCH, attention=AttentionChoice.PACKED),
    ),
    "-stripped": (FORMS, EngineOptions(BuilderChoice.TENSORRT, batch=BATCH, strip_weights=True)),
    "-packed-stripped": (
        ("adaptive",),
        EngineOptions(
            BuilderChoice.TENSORRT,
            batch=BATCH,
            strip_weights=True,
            plugin=PluginChoice.NEVER,
            attention=AttentionChoice.PACKED,
        ),
    ),
}
"""Of full TensorRT: in which forms of the model, and how."""

CASES: Final = (
    *(EngineCase("", form, RTX) for form in FORMS),
    *(EngineCase(kind, form, options) for kind, (forms, options) in FULL.items() for form in forms),
)


def needs_gpu(builder: BuilderName) -> None:
    """Goes on where engines of a builder can be built and run."""
    package = PACKAGES[builder].name
    pytest.importorskip(package, reason=f"{package} is not installed")
    try:
        target = device().target
    except SaitError as error:
        no_gpu(f"{error.message}; {error.hint}")
    if builder is BuilderName.TENSORRT_RTX and target not in TARGETS:
        pytest.skip(f"TensorRT for RTX builds for no {target}")
