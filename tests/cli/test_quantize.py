"""``sait-deploy quantize``: the last export in int8, without torch, and what it says of the answers."""

from __future__ import annotations

import json
from pathlib import Path

from sait_deploy import demo
from sait_deploy.artifacts.folder import Workspace, open_artifact
from tests.cli.calls import Sait
from tests.test_imports import cli_without_torch

IMAGES = ("--images", demo.IMAGES, "--threads", "1")


def test_the_last_export_is_quantised_and_becomes_the_last(sait: Sait, workspace: Path) -> None:
    done = sait("quantize", "--workspace", workspace, *IMAGES, "--min-agreement", "50")
    assert done.code == 0, done.err
    assert "sait_demo_digits-dense-int8" in done.out and "23 of 24" in done.out
    assert "30 images" in done.err and "128 are better" in done.err
    places = Workspace(workspace).last_export()
    assert [place.name for place in places] == ["sait_demo_digits-dense-int8", "sait_demo_digits-density0.6-int8"]
    inspected = sait("inspect", places[1])
    assert "blocks.1.attn.qkv: importance is read from it" in " ".join(inspected.out.split())
    named = sait("quantize", places[1], *IMAGES)
    assert (named.code, "is quantised already" in named.err) == (2, True)
    again = sait("quantize", "--workspace", workspace, *IMAGES)
    assert again.code != 0 and "is already there" in again.err and "--overwrite" in again.err


def test_as_json(sait: Sait, workspace: Path) -> None:
    name = "sait_demo_digits-density0.6"
    done = sait("quantize", workspace / name, *IMAGES, "--min-agreement", "50", "--exclude", "none", "--json")
    assert done.code == 0, done.err
    dense, half = json.loads(done.out)["artifacts"]
    assert (dense["baseline"], half["baseline"]) == (None, dense["id"])
    assert half["quantization"]["kept_float"] == {}
    assert half["quantized_from"] == open_artifact(workspace / name).manifest.id


def test_it_needs_no_torch(workspace: Path, tmp_path: Path) -> None:
    where = ("--workspace", workspace, *IMAGES, "--min-agreement", "50")
    done = cli_without_torch(tmp_path, "quantize", workspace / "sait_demo_digits-dense", *where)
    assert done.returncode == 0, done.stderr
    assert "sait_demo_digits-dense-int8" in done.stdout
