"""Models that embed on the command line: exported, asked, evaluated, tuned, and each refusal in a line with a hint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sait_deploy.artifacts.folder import Artifact, Workspace
from sait_deploy.evaluation.results import Kind, from_json
from tests.cli.calls import Sait
from tests.evaluation.tunings import draw
from tests.exported import IMAGE_SIZE, TinyExport

FEW = 14


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Images in two subfolders."""
    for number, name in enumerate(("cups", "trees")):
        draw(tmp_path / "images" / name, FEW // 2, number)
    return tmp_path / "images"


@pytest.fixture
def place(embedders: list[Artifact], tmp_path: Path) -> Path:
    """The default workspace, with the embedders exported last."""
    root = tmp_path / "artifacts"
    places = [Path(shutil.copytree(artifact.path, root / artifact.path.name)) for artifact in embedders]
    Workspace(root).record_last_export(places)
    return places[-1]


def test_a_classifier_is_exported_to_embed_and_its_head_said_to_be_left_out(
    sait: Sait, tiny: TinyExport, folders: Path
) -> None:
    model = ("--model", "test_vit", "--weights", tiny.weights, "--imgsz", IMAGE_SIZE)
    done = sait("export", *model, "--task", "embed", "--dense", "--images", folders / "cups")
    assert done.code == 0, done.err
    assert "- the head of 5 classes is left out (assumed:" in done.err
    assert "give --head projection" in done.err
    assert (Path("artifacts") / "test_vit-96px-embed-dense").is_dir()


def test_predict_says_which_images_are_alike(sait: Sait, place: Path, folders: Path) -> None:
    done = sait("predict", folders, "--threads", "1", "--top", "2")
    assert done.code == 0, done.err
    _, heading, *rows = done.out.splitlines()
    assert "the 2 most alike, and their cosine" in heading
    assert len(rows) >= FEW
    found = json.loads(sait("predict", folders, "--json", "--threads", "1").out)
    assert len(found) == FEW and all(row.keys() == {"path", "embedding", "kept"} for row in found)
    embeddings = np.array([row["embedding"] for row in found])
    near = embeddings @ embeddings.T - 2 * np.eye(FEW)
    closest = Path(found[int(near[0].argmax())]["path"]).name
    assert f"{closest} {near[0].max():.3f}" in " ".join(rows[:2])
    alone = sait("predict", folders / "cups" / "0-000.png", "--threads", "1", "--visualize", "pictures")
    assert alone.code == 0, alone.err
    assert alone.out.splitlines()[-1].split()[-1] == "–"
    assert Path("pictures", "contact-sheet.png").is_file()


def test_evaluate_reports_retrieval_and_zero_shot(sait: Sait, place: Path, folders: Path) -> None:
    np.savez("classes.npz", embeddings=np.eye(2, 64), labels=np.array(["trees", "cups"]))
    options = ("--images", folders, "--lower-resolution", "none", "--threads", "1")
    done = sait("evaluate", *options, "--class-embeddings", "classes.npz", "-o", "r.json", "-o", "r.html")
    assert done.code == 0, done.err
    assert "recall@1 / 5 / 10" in " ".join(done.out.split()) and "top-1" in done.out
    assert "cosine alone misleads" in " ".join(done.out.split())
    rows = from_json(Path("r.json").read_text(encoding="utf-8")).rows
    assert any(row.kind is Kind.RANDOM for row in rows)
    assert all(row.top1_percent is not None and row.retrieval is not None for row in rows)
    none = sait("evaluate", *options, "--control", "none", "--json")
    assert not [row for row in from_json(none.out).rows if row.kind is Kind.RANDOM]


def test_tune_takes_a_limit_on_recall(sait: Sait, place: Path, folders: Path) -> None:
    done = sait("tune", "--images", folders, "--max-recall-drop", "90", "--grid", "0.99,0.9", "--threads", "1")
    assert done.code == 0, done.err
    assert "points of recall@1 lost" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("evaluate", "--class-embeddings", "nan.npz"), "row 0 of 'embeddings' in nan.npz is not finite"),
        (("evaluate", "--class-embeddings", "narrow.npz"), "have 3 numbers each, and the model's have 64"),
        (("evaluate", "--class-embeddings", "pickled.npz"), "hold Python objects"),
        (("evaluate", "--class-embeddings", "short.npz"), "no array 'labels', and hold embeddings"),
        (("evaluate", "--class-embeddings", "missing.npz"), "cannot be read (No such file"),
        (("evaluate", "--task", "embed"), "--task cannot be chosen for an artifact"),
        (("evaluate", "--task", "classify", "--class-embeddings", "nan.npz"), "not for --task classify"),
        (("evaluate", "--control", "two"), "two"),
        (("tune", "--max-recall-drop", "1", "--recall-at", "3"), "among 3 nearest images is not measured"),
        (("tune", "--max-drop", "1"), "no top-1 to lose"),
        (("tune", "--max-recall-drop", "60", "--recall-at", "10"), "too few for recall@10"),
    ],
)
def test_each_refusal_is_a_line_with_a_hint(
    arguments: tuple[str, ...], says: str, sait: Sait, place: Path, folders: Path
) -> None:
    np.savez("nan.npz", embeddings=np.full((2, 64), np.nan), labels=np.array(["a", "b"]))
    np.savez("narrow.npz", embeddings=np.ones((2, 3)), labels=np.array(["a", "b"]))
    np.savez("pickled.npz", embeddings=np.ones((2, 64)), labels=np.array(["a", "b"], dtype=object))
    np.savez("short.npz", embeddings=np.ones((2, 64)))
    done = sait(*arguments, "--images", folders)
    assert done.code == 2
    error = [line for line in done.err.splitlines() if not line.startswith("-")]
    assert says in " ".join(error)
    assert any(line.startswith("hint: ") for line in error)
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--task", "features"), "--task features is for models without a head"),
        (("--head", "projection"), "--head projection says what is part of an embedding"),
    ],
)
def test_export_refuses_a_task_that_the_model_has_not(arguments: tuple[str, ...], says: str, sait: Sait) -> None:
    done = sait("export", *arguments)
    assert done.code == 2
    assert says in done.err and "hint: " in done.err
