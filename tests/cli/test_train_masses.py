"""``sait-deploy train --mass-range``: sparse steps that draw masses, from the command line and from a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sait_deploy.models.weights import SparseTraining, read_training
from sait_deploy.tokens import Score
from sait_deploy.training.state import CURVE_FILE, WEIGHTS_FILE
from tests.cli.calls import Sait
from tests.training.small import squares

FOLDER = ("--model", "test_vit", "--imgsz", "64", "--epochs", "1", "--batch", "3", "--data", "pictures")
MASSES = (*FOLDER, "--random-weights", "--new-head", "--density-range", "1:1", "--json")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return squares(tmp_path / "pictures", 4, 2)


def test_masses_from_the_command_line(sait: Sait, tmp_path: Path, pictures: Path) -> None:
    """Of four steps the last draws a mass, and nothing else drops tokens."""
    done = sait("train", *MASSES, "--mass-range", "0.5:0.8", "-o", "out")
    assert done.code == 0, done.err
    (entry,) = json.loads(done.out)["log"]
    assert (entry["steps"], entry["sparse_steps"]) == (4, 2)
    assert 0.75 < entry["density"] < 0.99
    assert (entry["mass"], entry["sparse_density"]) == (0.5, 1.0)
    assert f"{entry['mass_top1']:.1f} % at mass 0.5," in done.err
    assert "mass 0.5" in (tmp_path / "out" / CURVE_FILE).read_text()
    trained = SparseTraining(Score.MEAN, 1, 1.0, 1.0, 0.5, 0.8)
    assert read_training(tmp_path / "out" / WEIGHTS_FILE) == trained
    again = sait("train", *MASSES, "--mass-range", "0.5:0.8", "-o", "out")
    assert (again.code, again.out) == (0, done.out)
    for other, named in (
        (("--mass-range", "0.5:0.9"), "its masses.high is 0.8, not 0.9"),
        ((), "its masses.low is 0.5"),
    ):
        refused = sait("train", *MASSES, *other, "-o", "out")
        assert (refused.code, refused.out) == (2, "")
        assert f"error: out holds another training: {named}" in refused.err


@pytest.mark.parametrize("masses", [(), ("--mass-range", "0.5:0.8")])
def test_the_table_has_columns_of_masses_where_some_were_drawn(
    sait: Sait, pictures: Path, masses: tuple[str, ...]
) -> None:
    done = sait("train", *MASSES[:-1], *masses)
    assert done.code == 0, done.err
    headings, row = [re.split("  +", line.strip()) for line in done.out.splitlines() if line.strip()]
    found = dict(zip(headings, row, strict=True))
    assert found["at density"] == "1"
    assert [name for name in headings if "mass" in name] == (["top-1 % by mass", "at mass"] if masses else [])
    assert found.get("at mass") == ("0.5" if masses else None)
    assert not masses or float(found["top-1 % by mass"]) in (0.0, 16.7, 33.3, 50.0, 66.7, 83.3, 100.0), "of six images"


def test_masses_from_a_file(sait: Sait, tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "recipe.toml").write_text('mass-range = "0.7:0.98"\n')
    done = sait("train", *MASSES, "--config", "recipe.toml")
    assert done.code == 0, done.err
    trained = read_training(tmp_path / "training" / WEIGHTS_FILE)
    assert trained is not None
    assert (trained.low_mass, trained.high_mass) == (0.7, 0.98)
    dense = sait("train", *FOLDER, "--config", "recipe.toml", "--alternation", "never", "-o", "dense")
    assert (dense.code, dense.out) == (2, "")
    assert "--mass-range is for sparse steps, and there are none" in dense.err
    (tmp_path / "recipe.toml").write_text('mass-range = "0.7"\n')
    wrong = sait("train", *FOLDER, "--config", "recipe.toml", "-o", "wrong")
    assert (wrong.code, wrong.out) == (2, "")
    assert "mass range '0.7' is not LOW:HIGH" in wrong.err
