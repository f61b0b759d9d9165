"""Commands of the how-tos that need no more than the demonstration model and a folder of images are run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.cli import run
from tests.docs.blocks import ROOT, commands

RUN = ("export", "quantize", "bench", "evaluate", "tune", "recommend", "predict", "inspect")
OF_OTHERS = (
    "--model",
    "--artifact",
    "--pretrained",
    "tensorrt",
    "cuda",
    "artifacts/",
    "--max-recall-drop",
    "--oracle",
    "tuned",
)
"""What marks a command as one about a model of the reader's own, or another machine."""

FOLDERS = ("photos", "val", "unlabelled")
QUICK = {
    "export": ("-o", "made", "--overwrite"),
    "quantize": ("--overwrite", "--min-agreement", "0", "--images", "photos"),
    "bench": ("--duration", "0.02", "--warmup", "0", "--batch", "1", "--images", "photos", "--threads", "1"),
    "evaluate": ("--limit", "12", "--images", "photos"),
    "tune": ("--grid", "0.99,0.97"),
}
"""What makes a command quick: few images, little time."""

ALLOWED = {0, 7, 10}
"""Of few images and little time there is no point that keeps a limit, and not every processor computes in bf16."""


def runnable(page: Path) -> list[list[str]]:
    """Commands of a page, each once, in their order."""
    found = [words for words in commands(page) if words[:1] == ["sait-deploy"] and words[1] in RUN]
    own = [words[1:] for words in found if not any(mark in word for mark in OF_OTHERS for word in words)]
    return list(map(list, dict.fromkeys(map(tuple, own))))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model at a density and adaptive."""
    folder = tmp_path_factory.mktemp("exported") / "artifacts"
    with pytest.raises(SystemExit) as leaving:
        run(["export", "--density", "0.5", "--mass", "0.9", "-o", str(folder)])
    assert not leaving.value.code
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", ["how-to", "quantization", "training"])
def test_commands_of_a_page_run(
    page: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in FOLDERS:
        shutil.copytree(demo.IMAGES, tmp_path / name)
    shutil.copy(demo.IMAGES / "7" / "0.png", tmp_path / "photo.jpg")
    shutil.copytree(exported, tmp_path / "artifacts")
    monkeypatch.chdir(tmp_path)
    found = runnable(ROOT / "docs" / f"{page}.md")
    assert len(found) > 2
    for words in found:
        if words[0] == "recommend" and "--bench" not in words:
            continue  # it measures for a minute; its own tests do that
        with pytest.raises(SystemExit) as leaving:
            run([*words, *QUICK.get(words[0], ())])
        assert (leaving.value.code or 0) in ALLOWED, f"{words}: {capsys.readouterr().err}"
