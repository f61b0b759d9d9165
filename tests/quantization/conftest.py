"""Small artifacts and their int8 ones, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.quantization.options import QuantizeOptions
from sait_deploy.quantization.stage import quantize
from tests.exported import TinyExport
from tests.shared import made_once

ANY_AGREEMENT = QuantizeOptions(images=demo.IMAGES, min_agreement=0, threads=1)
"""For a model that was never trained: forty images, and whatever agreement there is."""


def copies(folder: Path, *artifacts: Artifact) -> list[Artifact]:
    """Copies artifacts into one folder, where others may be written beside them."""
    places = [Path(shutil.copytree(artifact.path, folder / artifact.path.name)) for artifact in artifacts]
    return [Artifact(place, artifact.manifest) for place, artifact in zip(places, artifacts, strict=True)]


@pytest.fixture(scope="session")
def floats(tiny: TinyExport, tiny_adaptive: Artifact) -> list[Artifact]:
    """The dense, density 0.5 and adaptive artifacts of the small model."""
    return [tiny.dense, tiny.half, tiny_adaptive]


@pytest.fixture(scope="session")
def quantised(floats: list[Artifact]) -> list[Artifact]:
    """Their int8 artifacts, beside copies of them."""
    return made_once("quantised", lambda folder: quantize(copies(folder, *floats), ANY_AGREEMENT))
