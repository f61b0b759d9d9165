"""The section on families says which targets were missed, and memory where it was measured."""

from __future__ import annotations

import copy

import pytest

from benchmarks import family_figures
from benchmarks.common import read_result


def test_memory_and_missed_targets_stand_beside_the_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    found = copy.deepcopy(read_result("families_cpu"))
    part = found["models"]["vit_small_patch16_dinov3"]
    part["memory"] = [
        {"group": "onnxruntime fp32", "variant": "density 0.5", "over_dense": share} for share in (0.96, 1.02)
    ]
    part["judged"] = [
        {"group": "onnxruntime fp32", "variant": "density 0.5", "batch": 1, "share": 0.91, "reached": False}
    ]
    monkeypatch.setattr(family_figures, "read_result", lambda name: {"models": {"lvvit_small": part}})
    text = "\n".join(family_figures.families())
    assert "LV-ViT-S, kept" in text
    assert "a share of 0.93 at batch 1, of ONNX Runtime" in text
    assert "density 0.5, batch 1 (0.91)" in text
    assert "at batch 32: ONNX Runtime fp32, density 0.5 0.96" in text
    assert "no more than dense; missed by 1 of 2" in text
