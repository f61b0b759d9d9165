"""Who gains by a mass: each group's rows are of its own images, paired."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.adapting_groups import Answers, main, rows


def test_each_group_is_of_its_own_images() -> None:
    few, many = np.zeros(40, np.int64), np.ones(60, np.int64)
    everything = np.ones(100, bool)
    density, mass = everything.copy(), everything.copy()
    mass[:10], density[40:70] = False, False
    kept = np.concatenate([np.full(40, 3, np.int32), np.full(60, 9, np.int32)])
    found = Answers(density, mass, everything, kept, np.arange(100))
    first, second = rows(("few", "many"), np.concatenate([few, many]), Decimal("0.1"), found)
    assert (first["group"], first["images"], first["mass_kept_mean"]) == ("few", 40, 3.0)
    assert first["gain"]["value"] == pytest.approx(-25) and first["density_change"]["value"] == 0
    assert second["gain"]["value"] == pytest.approx(50) and second["mass_change"]["value"] == 0
    assert second["gain"]["low"] > 0 > first["gain"]["high"]


def test_answers_of_several_students_to_one_image_are_one_draw() -> None:
    everything, mass = np.ones(100, bool), np.ones(100, bool)
    mass[:20] = False
    one = Answers(everything, mass, everything, np.full(100, 3, np.int32), np.arange(100))
    three = Answers(*(np.tile(part, 3) for part in (one.density, one.mass, one.dense, one.kept, one.image)))
    (alone,), (together,) = (
        rows(("all",), np.zeros(len(found.image), np.int64), Decimal("0.1"), found) for found in (one, three)
    )
    assert together["images"] == alone["images"] == 100
    assert together["gain"] == pytest.approx(alone["gain"])


def test_without_trained_weights_it_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["many", "--folder", str(tmp_path)])
    assert result.exit_code == 1 and "no trained weights" in result.output
