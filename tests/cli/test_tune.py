"""``sait-deploy tune``: a table and a point, or a line that recommends dense and an exit code of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sait_deploy.artifacts.folder import Artifact, Workspace, open_artifact
from tests.cli.calls import Sait
from tests.exported import IMAGE_SIZE, POINTS, TinyExport

GRID = "0.999,0.99,0.95,0.9"
COUNT = 160
TARGET_MISSED = 10


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unlabelled images of coarse noise."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for number in range(COUNT):
        pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((IMAGE_SIZE, IMAGE_SIZE)).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture
def place(tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path) -> Path:
    """The default workspace of the folder that commands run in, with an adaptive artifact exported last."""
    root = tmp_path / "artifacts"
    places = [root / artifact.path.name for artifact in (tiny.dense, tiny_adaptive)]
    for artifact, copy in zip((tiny.dense, tiny_adaptive), places, strict=True):
        shutil.copytree(artifact.path, copy)
    Workspace(root).record_last_export(places)
    return places[-1]


def test_a_point_is_found_and_its_use_is_said(sait: Sait, place: Path, images: Path) -> None:
    done = sait("tune", "--images", images, "--max-disagreement", "20", "--grid", GRID, "--threads", "1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("tried on 80 of 160 images")
    head = next(index for index, line in enumerate(lines) if line.startswith("point"))  # the title may take two lines
    assert lines[head].split()[:2] == ["point", "kept,"] and "% answered otherwise" in lines[head]
    rows = lines[head + 1 :]
    assert [row.split()[:2] for row in rows[:2]] == [["mass", "0.999"], ["mass", "0.99"]]
    assert rows[0].split()[-1] == "passes"
    assert "checked on 80 of 160 images" in done.out
    assert "sait-deploy predict IMAGES --point tuned" in done.out
    assert "sait-deploy bench --point tuned" in done.out
    assert "it takes 14 images at least" in done.err
    pruning = open_artifact(place).manifest.pruning
    assert pruning is not None and pruning.points[-1].name == "tuned"


def test_the_commands_that_are_said_work(sait: Sait, place: Path, images: Path) -> None:
    done = sait("tune", "--images", images, "--max-disagreement", "20", "--grid", GRID, "--name", "mine")
    (predict,) = (line.split() for line in done.out.splitlines() if "sait-deploy predict" in line)
    first = sorted(images.iterdir())[0]
    arguments = [str(first) if word == "IMAGES" else word for word in predict[1:]]
    answered = sait(*arguments, "--json", "--threads", "1")
    assert answered.code == 0, answered.err
    shown = sait("inspect", place)
    assert shown.code == 0 and "mine" in shown.out
    bench = sait("bench", "--point", "mine", "--batch", "1", "--duration", "0.01", "--warmup", "0", "--images", images)
    assert bench.code == 0, bench.err
    assert "mine" in bench.out


def test_another_artifact_is_named_in_what_to_do(sait: Sait, place: Path, images: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / place.name
    shutil.copytree(place, other)
    done = sait("tune", other, "--images", images, "--max-disagreement", "20", "--grid", GRID)
    assert f"sait-deploy predict IMAGES --artifact {other} --point tuned" in done.out
    assert f"sait-deploy bench {other} --point tuned" in done.out
    assert not (place / "points").exists()


def test_json_is_all_of_stdout(sait: Sait, place: Path, images: Path) -> None:
    done = sait("tune", "--images", images, "--max-disagreement", "20", "--grid", GRID, "--json")
    found = json.loads(done.out)
    assert found["outcome"] == "tuned"
    assert found["file"].endswith("points/tuned.json")
    assert found["limit"] == {"measure": "disagreement", "percent": 20.0, "confidence": 0.95}
    assert [trial["candidate"]["share"] for trial in found["trials"]][:2] == [0.999, 0.99]


@pytest.mark.parametrize(
    ("arguments", "outcome", "words"),
    [
        (("--max-disagreement", "0.5"), "too few images", "598"),
        (("--max-disagreement", "5", "--grid", "0.3,0.2"), "nothing passes", "dense is recommended"),
    ],
)
def test_recommending_dense_has_its_exit_code(
    sait: Sait, place: Path, images: Path, arguments: tuple[str, ...], outcome: str, words: str
) -> None:
    done = sait("tune", "--images", images, *arguments)
    assert done.code == TARGET_MISSED
    error, hint = done.err.splitlines()[-2:]
    assert error.startswith("error: ") and words in error
    assert hint.startswith("hint: ") and "dense" in hint
    assert not (place / "points").exists()
    as_json = sait("tune", "--images", images, *arguments, "--json")
    assert as_json.code == TARGET_MISSED
    assert json.loads(as_json.out)["outcome"] == outcome


def test_without_an_adaptive_artifact_the_command_to_run_is_said(sait: Sait, tiny: TinyExport, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    for artifact in (tiny.dense, tiny.half):
        shutil.copytree(artifact.path, root / artifact.path.name)
    Workspace(root).record_last_export([root / tiny.dense.path.name, root / tiny.half.path.name])
    done = sait("tune", "--max-drop", "0.5")
    assert done.code == 5
    assert done.err.splitlines()[-1] == "hint: run: sait-deploy export --mass 0.9"
    nowhere = sait("tune", "--max-drop", "0.5", "--workspace", "none")
    assert (nowhere.code, nowhere.err.splitlines()[-1]) == (5, "hint: run: sait-deploy export --mass 0.9")
    fixed = sait("tune", "--max-drop", "0.5", tiny.half.path)
    assert (fixed.code, fixed.err.splitlines()[-1]) == (2, "hint: tune an adaptive one: sait-deploy export --mass 0.9")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--max-drop or --max-disagreement"),
        (("--max-drop", "1", "--max-disagreement", "1"), "--max-drop or --max-disagreement"),
        (("--max-drop", "0"), "such as 0.5"),
        (("--max-drop", "nan"), "such as 0.5"),
        (("--max-drop", "1", "--confidence", "95"), "such as 0.95"),
        (("--max-drop", "1", "--grid", "a,b"), "0.99,0.95,0.9"),
        (("--max-drop", "1", "--grid", "0.5,0.6"), "0.99,0.95,0.9"),
        (("--max-drop", "1", "--search", "luck"), "prune-at, score"),
        (("--max-drop", "1", "--runtime", "abacus"), "onnxruntime"),
        (("--max-drop", "1", "--runtime", "tensorrt", "--search", "score"), "--runtime onnxruntime"),
        (("--max-drop", "1", "--check-images", "here"), "--images"),
        (("--max-disagreement", "1", "--name", POINTS[1].name), "another name"),
        (("--max-disagreement", "1", "--name", "two words"), "begin with a letter"),
        (("--max-drop", "1", "--seed", "-1"), "from 0"),
        (("--max-drop", "1", "--device", "nonsense"), "use openvino, torch"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(sait: Sait, place: Path, arguments: tuple[str, ...], words: str) -> None:
    done = sait("tune", *arguments)
    assert done.code == 2, done.err
    assert words in done.err.splitlines()[-1]
    assert not done.out


def test_a_drop_without_labels(sait: Sait, place: Path, images: Path) -> None:
    done = sait("tune", "--images", images, "--max-drop", "20")
    assert done.code == 2
    assert "--max-disagreement" in done.err.splitlines()[-1]
