"""``sait-deploy export --task tokens``: image towers through the command line, and what refuses them there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sait_deploy.artifacts.folder import MANIFEST_FILE
from tests.cli.calls import Sait

MODEL = ["--model", "test_vit", "--random-weights", "--imgsz", "64"]
TOKENS = [*MODEL, "--task", "tokens"]
REFUSED = [
    ([*TOKENS, "--vision-feature-layer", "9"], "layer 9 is none of a tower of 6 blocks", "give 1 to 6"),
    ([*TOKENS, "--vision-feature-layer", "0"], "layer 0 is none of a tower of 6 blocks", "give 1 to 6"),
    (
        [*TOKENS, "--vision-feature-layer", "-2", "--prune-at", "5"],
        "prune_at 5 is no block of a model of depth 5",
        "give 0 to 4",
    ),
    ([*MODEL, "--vision-feature-layer", "-2"], "are of an image tower", "give --task tokens as well"),
    ([*MODEL, "--vision-feature-select-strategy", "full"], "are of an image tower", "give --task tokens as well"),
    ([*TOKENS, "--vision-feature-layer", "last"], "'last' is not a valid integer", "--help"),
    ([*TOKENS, "--vision-feature-select-strategy", "cls"], "'cls' is not one of 'default', 'full'", "--help"),
    ([*TOKENS, "--features", "1"], "an image tower returns the tokens of one layer", "leave --features out"),
]


def test_a_tower_by_options_and_by_a_file(sait: Sait) -> None:
    taken = ["--vision-feature-layer", "-2", "--vision-feature-select-strategy", "full"]
    done = sait("export", *TOKENS, *taken, "--density", "0.5", "-o", "made")
    assert done.code == 0, done.err
    (folder,) = Path("made").glob("*-density0.5")
    assert folder.name == "test_vit-64px-tokens-layer-2-full-density0.5"
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    tower = {"vision_feature_layer": -2, "vision_feature_select_strategy": "full"}
    assert manifest["model"]["tower"] == tower
    assert [output["name"] for output in manifest["outputs"]] == ["tokens", "cu_seqlens", "positions"]
    for command in ("build-engine", "quantize"):
        refused = sait(command, folder)
        assert (refused.code, refused.out) == (2, "")
        assert "image tower" in refused.err and "hint: " in refused.err
    written = [f"vision-feature-layer = {tower['vision_feature_layer']}", 'vision-feature-select-strategy = "full"']
    lines = ['model = "test_vit"', "random-weights = true", 'imgsz = "64"', 'task = "tokens"', 'density = ["0.5"]']
    Path("options.toml").write_text("\n".join([*lines, *written]))
    again = sait("export", "--config", "options.toml", "-o", "again")
    assert again.code == 0, again.err
    assert json.loads((Path("again") / folder.name / MANIFEST_FILE).read_text())["model"]["tower"] == tower


@pytest.mark.parametrize(("arguments", "message", "hint"), REFUSED, ids=lambda value: str(value)[-40:])
def test_what_is_no_tower(sait: Sait, tmp_path: Path, arguments: list[str], message: str, hint: str) -> None:
    done = sait("export", *arguments, "--density", "0.5")
    assert (done.code, done.out) == (2, "")
    assert message in done.err and hint in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert not list(tmp_path.rglob("*.onnx")), "something was written"
