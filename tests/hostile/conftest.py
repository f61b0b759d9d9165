"""The world of hostile cases, made once in a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.quantization.options import QuantizeOptions
from sait_deploy.quantization.stage import quantize
from tests.exported import TinyExport
from tests.hostile.world import make_world
from tests.shared import made_once


@pytest.fixture(scope="session")
def world(tiny: TinyExport, tiny_adaptive: Artifact, embedders: list[Artifact]) -> Path:
    """A folder with all that cases start from. Read it only."""

    def make(folder: Path) -> Path:
        floats = folder / "floats"
        places = [Path(shutil.copytree(one.path, floats / one.path.name)) for one in (tiny.dense, tiny_adaptive)]
        copies = [Artifact(places[0], tiny.dense.manifest), Artifact(places[1], tiny_adaptive.manifest)]
        int8 = quantize(copies, QuantizeOptions(demo.IMAGES, min_agreement=0, threads=1))[-1].path
        place = folder / "world"
        place.mkdir()
        return make_world(place, tiny, tiny_adaptive.path, int8, embedders[-1].path)

    return made_once("hostile-world", make)
