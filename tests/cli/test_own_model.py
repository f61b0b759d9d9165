"""A fine-tuned model from outside: weights, a configuration beside them, and folders of images: all of them right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.images.preprocess import preprocess
from sait_deploy.models.registry import WeightsRequest, load_model
from tests.cli.calls import Sait

NAME, SIDE = "test_vit", 64
LABELS = ("zebra", "cat", "a dog")
FOLDERS = ("Zebra", "Cat", "A_Dog")
"""Their alphabetical order is another than the labels'."""

MEAN, STD = (0.2, 0.5, 0.8), 0.1
"""Each class is one standard deviation above the mean in a channel of its own."""

CONFIG: dict[str, Any] = {
    "architecture": NAME,
    "pretrained_cfg": {
        "mean": MEAN,
        "std": [STD] * 3,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "input_size": [3, SIDE, SIDE],
    },
}
SCALE = ("--mean", ",".join(map(str, MEAN)), "--std", STD)
OPTIONS = (*SCALE, "--crop-pct", 1, "--interpolation", "bilinear", "--imgsz", SIDE)


def picture(label: int, seed: int) -> Image.Image:
    """A picture of a class, with noise, of another shape than the model's input."""
    values = np.array(MEAN) + STD * np.eye(3)[label] + np.random.default_rng(seed).normal(0, 0.02, (80, 96, 3))
    return Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was fine-tuned with its own normalisation, with images and labels."""
    folder = tmp_path_factory.mktemp("own")
    for label, name in enumerate(FOLDERS):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(8):
            picture(label, 100 * label + index).save(folder / "images" / name / f"{index}.png")
    (folder / "labels.txt").write_bytes("\ufeffzebra\r\ncat\r\na dog\r\n".encode())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = timm.create_model(NAME, img_size=SIDE, num_classes=3)
    vit.pretrained_cfg = {**vit.pretrained_cfg, **CONFIG["pretrained_cfg"]}
    torch.save(vit.state_dict(), folder / "weights.pth")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    prepared = load_model(NAME, WeightsRequest(WeightsSource.FILE, folder / "weights.pth")).preprocessing
    seen = preprocess([picture(i % 3, 1000 + i) for i in range(48)], prepared)
    images, wanted = torch.from_numpy(seen), torch.arange(48) % 3
    optimizer = torch.optim.Adam(vit.parameters(), lr=1e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(vit(images), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if loss.item() < 0.01:
            break
    torch.save(vit.eval().state_dict(), folder / "weights.pth")
    return folder


def arguments(folder: Path, *more: object) -> tuple[object, ...]:
    images, labels = folder / "images", folder / "labels.txt"
    return ("--model", NAME, "--weights", folder / "weights.pth", "--images", images, "--labels", labels, *more)


def test_what_lies_beside_the_weights_makes_all_answers_right(sait: Sait, tuned: Path, tmp_path: Path) -> None:
    done = sait("export", *arguments(tuned), "--dense", "-o", tmp_path / "a")
    assert done.code == 0, done.err
    assert "(read from config.json)" in done.err
    assert "dense itself" not in done.err
    assert "- right: test_vit-64px-dense 100.0 % of 24 images" in done.err
    artifact = tmp_path / "a" / f"{NAME}-64px-dense"
    manifest = open_artifact(artifact).manifest
    assert manifest.preprocessing_sources["mean"] == "read from config.json"
    assert manifest.model.labels == LABELS
    assert "read from config.json" in sait("inspect", artifact).out
    answers = json.loads(sait("predict", tuned / "images", "--artifact", artifact, "--top", "1", "--json").out)
    right = [LABELS[FOLDERS.index(Path(one["path"]).parent.name)] for one in answers]
    assert [one["labels"][0] for one in answers] == right
    found = json.loads(sait("evaluate", artifact, "--images", tuned / "images", "--json").out)
    assert {row["top1_percent"] for row in found["rows"] if row["kind"] == "dense"} == {100.0}


def test_without_it_the_options_do_and_the_guess_says_that_it_is_one(sait: Sait, tuned: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "weights.pth").symlink_to(tuned / "weights.pth")
    weights = ("--weights", alone / "weights.pth")
    given = sait("export", *arguments(tuned, *weights, *OPTIONS), "--dense", "-o", tmp_path / "a")
    assert "100.0 % of 24 images" in given.err
    assert "(given)" in given.err
    guessed = sait("export", *arguments(tuned, *weights, "--imgsz", SIDE), "--dense", "-o", tmp_path / "a")
    assert "assumed from the model's name" in guessed.err
    assert "100.0 % of 24 images" not in guessed.err
    assert re.search(r"warning: dense itself is [0-6]?\d\.\d % right on 24 images, and chance is 33 %", guessed.err)
    assert len(list((tmp_path / "a").glob("*-dense*"))) == 2, "exports of other preprocessing are other exports"


def test_a_dense_baseline_gets_the_labels_of_the_next_export(sait: Sait, tuned: Path, tmp_path: Path) -> None:
    plain = ("--model", NAME, "--weights", tuned / "weights.pth", "-o", tmp_path / "a")
    dense = tmp_path / "a" / f"{NAME}-64px-dense"
    assert sait("export", *plain, "--dense").code == 0
    assert open_artifact(dense).manifest.model.labels is None
    named = sait("predict", tuned / "images" / "Cat", "--artifact", dense, "--labels", tuned / "labels.txt")
    assert "cat" in named.out
    done = sait("export", *plain, "--labels", tuned / "labels.txt")
    assert "already there without labels" in done.err
    assert open_artifact(dense).manifest.model.labels == LABELS
    merged = sait("export", *plain, "--density", "0.5")
    assert "labels: those of" in merged.err
    assert open_artifact(tmp_path / "a" / f"{NAME}-64px-density0.5").manifest.model.labels == LABELS
    other = tmp_path / "other.json"
    other.write_text('["zebra", "dog", "cat"]')
    refused = sait("export", *plain, "--density", "0.4", "--labels", other)
    assert refused.code == 2
    assert "class 1 is 'dog' here, and 'cat' in" in refused.err


def test_a_baseline_that_was_never_measured_is_when_labelled_images_are_there(
    sait: Sait, tuned: Path, tmp_path: Path
) -> None:
    named = (
        "--model",
        NAME,
        "--weights",
        tuned / "weights.pth",
        "--labels",
        tuned / "labels.txt",
        "-o",
        tmp_path / "a",
    )
    assert sait("export", *named, "--dense").code == 0
    done = sait("export", *named, "--images", tuned / "images", "--density", "0.5")
    assert "already there, never measured on labelled images, exported again with them" in done.err
    assert "- right: test_vit-64px-dense 100.0 % of 24 images, test_vit-64px-density0.5 " in done.err
    again = sait("export", *named, "--images", tuned / "images", "--density", "0.4")
    assert "dense: already there, kept" in again.err


def test_names_of_classes_beside_the_weights_are_labels_and_an_order_that_is_assumed_is_said(
    sait: Sait, tuned: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.pth").symlink_to(tuned / "weights.pth")
    options = ("--model", NAME, "--weights", tmp_path / "weights.pth", "--images", tuned / "images", "--dense")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "label_names": LABELS}), encoding="utf-8")
    done = sait("export", *options, "-o", tmp_path / "a")
    assert "- labels: read from config.json" in done.err
    assert "100.0 % of 24 images" in done.err
    assert open_artifact(tmp_path / "a" / f"{NAME}-64px-dense").manifest.model.labels_source == "read from config.json"
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assumed = sait("export", *options, "-o", tmp_path / "b")
    assert "alphabetical order is taken for that of the classes" in assumed.err


def test_bench_and_tune_say_first_that_dense_is_near_chance(sait: Sait, tuned: Path, tmp_path: Path) -> None:
    wrong = ("--mean", 0.5, "--std", 0.5, "--crop-pct", 1, "--interpolation", "bilinear")
    assert sait("export", *arguments(tuned), *wrong, "--mass", "0.9", "-o", tmp_path).code == 0
    known = r"warning: dense itself is [0-6]?\d\.\d % right on \d+ images, and chance is 33 %"
    images = ("--images", tuned / "images", "--workspace", tmp_path)
    measured = sait("bench", *images, "--batch", 1, "--duration", 0.1, "--warmup", 0, "--threads", 1)
    chosen = sait("tune", *images, "--max-drop", 50, "--grid", "0.9", "--threads", 1)
    assert re.search(known, measured.err)
    assert re.search(known, chosen.err)
    for done in (measured, chosen):
        warnings = [line for line in done.err.splitlines() if line.startswith("warning:")]
        assert re.match(known, warnings[0])


def test_training_hands_its_preprocessing_on(sait: Sait, tuned: Path, tmp_path: Path) -> None:
    begun = ("--model", NAME, "--weights", tuned / "weights.pth", "--data", tuned / "images", "--val", tuned / "images")
    options = ("--epochs", 1, "--batch", 8, "--augmentation", "none", "--lr", "1e-5", "--alternation", "never")
    done = sait("train", *begun, *options, "-o", tmp_path / "t")
    assert done.code == 0, done.err
    trained = load_model(NAME, WeightsRequest(WeightsSource.FILE, tmp_path / "t" / "model.safetensors"))
    begun_with = load_model(NAME, WeightsRequest(WeightsSource.FILE, tuned / "weights.pth"))
    assert trained.preprocessing == begun_with.preprocessing
    assert trained.info.labels == ("A_Dog", "Cat", "Zebra")
    other = sait("train", *begun, *options, "--mean", 0.5, "-o", tmp_path / "t")
    assert other.code == 2
    assert "holds another training: its preprocessing is" in other.err
