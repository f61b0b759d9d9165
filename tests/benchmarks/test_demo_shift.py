"""What tuned points meet: found on some images, shown on others, and nothing shown of what was not found."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import demo_shift
from benchmarks.demo_runs import composed
from benchmarks.demo_shift import CANVASES, shifted
from sait_deploy import demo
from sait_deploy.demo.data import LIGHT_CLUTTER, CanvasOptions
from sait_deploy.tokens import dense_macs, density_point, parse_density, pruned_macs
from tests.evaluation.sample import DIGITS, PRUNE_AT

NAMES = [name for name, _ in CANVASES]


@pytest.mark.slow
def test_a_tuned_point_is_shown_on_every_canvas_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[CanvasOptions, int, int]] = []

    def recorded(options: CanvasOptions, seed: int, count: int) -> Any:
        asked.append((options, seed, count))
        return composed(options, seed, count)

    monkeypatch.setattr(demo_shift, "composed", recorded)
    few = shifted(demo.WEIGHTS, 12)
    assert few["limit"] == demo_shift.LIMIT
    assert {told["outcome"] for told in few["tuned"].values()} == {"too few images"}
    assert all("12 images" in told["message"] and "share" not in told for told in few["tuned"].values())
    assert [set(few[name]) for name in NAMES] == [{"dense_top1_percent"}] * 3

    # A limit so wide that a dozen images can tell whether it is kept to.
    monkeypatch.setattr(demo_shift, "LIMIT", 60.0)
    asked.clear()
    found = shifted(demo.WEIGHTS, 12)
    assert found.keys() == {"limit", "tuned", *NAMES}
    assert found["limit"] == 60.0
    assert {told["outcome"] for told in found["tuned"].values()} == {"tuned"}
    assert [found[name]["dense_top1_percent"] for name in NAMES] == [few[name]["dense_top1_percent"] for name in NAMES]
    for name in NAMES:
        assert found[name].keys() == {"dense_top1_percent", "mass", "density"}
        for point in (found[name][kind] for kind in ("mass", "density")):
            assert point["change"]["low"] <= point["change"]["value"] <= point["change"]["high"]
    kept = density_point(parse_density(str(found["tuned"]["density"]["share"])), DIGITS.patch_tokens).max_keep
    ratio = round(dense_macs(DIGITS) / pruned_macs(DIGITS, PRUNE_AT, kept), 3)
    shown = [found[name]["density"] for name in NAMES]
    assert [(one["kept_mean"], one["kept_p95"], one["mac_ratio"]) for one in shown] == [(kept, kept, ratio)] * 3
    assert all(found[name]["mass"]["kept_mean"] <= found[name]["mass"]["kept_p95"] for name in NAMES)

    (light, tuned_on, count), *met = asked
    assert (light, count) == (LIGHT_CLUTTER, 24)
    assert [(canvas, images) for canvas, _, images in met] == [(canvas, 12) for _, canvas in CANVASES]
    assert tuned_on not in {seed for _, seed, _ in met}
