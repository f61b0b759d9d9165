"""An artifact's int8 one is found from its float one, and the other way round."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.artifacts.precisions import float_id, float_of, int8_of
from sait_deploy.errors import ArtifactError
from tests.exported import TinyExport
from tests.siblings import rewritten, with_int8


def test_both_ways_lead_to_the_other_and_back(tiny: TinyExport, tmp_path: Path) -> None:
    for quantised, exported in zip(with_int8(tmp_path, tiny.dense, tiny.half), (tiny.dense, tiny.half), strict=True):
        found = float_of(quantised)
        assert (found.path, found.manifest) == (tmp_path / exported.path.name, exported.manifest)
        assert int8_of(found).manifest == quantised.manifest
        assert int8_of(quantised) is quantised
        assert float_of(found) is found
        assert float_id(quantised) == float_id(found) == exported.manifest.id


def test_where_there_is_none_it_says_how_to_make_one(tiny: TinyExport, tmp_path: Path) -> None:
    (quantised,) = with_int8(tmp_path, tiny.half)
    exported = tmp_path / tiny.half.path.name
    shutil.rmtree(quantised.path)
    with pytest.raises(
        ArtifactError, match=r"no int8 artifact made from test_vit-96px-density0\.5 is beside it"
    ) as caught:
        int8_of(open_artifact(exported))
    assert caught.value.hint == "run: sait-deploy quantize"


def test_the_float_one_may_be_gone(tiny: TinyExport, tmp_path: Path) -> None:
    (quantised,) = with_int8(tmp_path, tiny.half)
    shutil.rmtree(tmp_path / tiny.half.path.name)
    with pytest.raises(ArtifactError, match=r"that test_vit-96px-density0\.5-int8 was made from is not beside it"):
        float_of(quantised)


def test_of_two_none_is_guessed(tiny: TinyExport, tmp_path: Path) -> None:
    (quantised,) = with_int8(tmp_path, tiny.half)
    other = Path(shutil.copytree(quantised.path, tmp_path / "other"))
    rewritten(open_artifact(other), id="other")
    with pytest.raises(ArtifactError, match=r"has several int8 artifacts: other, test_vit-96px-density0\.5-int8"):
        int8_of(open_artifact(tmp_path / tiny.half.path.name))
