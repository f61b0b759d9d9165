"""The README's commands do what it says: they are read from it and run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sait_deploy.cli import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "benchmarks/RESULTS.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
NEEDS_NETWORK = "--pretrained"
IMAGES = ROOT / "sait_deploy" / "demo" / "images"
ENDS_WHEN_STOPPED = "serve"
"""``make demo`` and the tests of serving start and stop it."""

_QUICK = {
    "bench": ("--duration", "0.05", "--warmup", "0", "--batch", "1,4", "--images", str(IMAGES)),
    "train": ("--epoch-images", "128", "--val-images", "50"),
    "tune": ("--grid", "0.99,0.97,0.95", "--images", str(IMAGES), "--max-drop", "20"),
    "evaluate": ("--limit", "40"),
}
"""What makes a command quick: few images, little time."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(program)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder in which the README's commands are run in their order, with the image that they name."""
    place = tmp_path_factory.mktemp("readme")
    (place / "artifacts").mkdir()
    digit = next((IMAGES / "7").glob("*.png"))
    shutil.copy(digit, place / "artifacts" / "photo.png")
    return place


def test_the_readme_has_the_commands_that_matter() -> None:
    assert [words[:2] for words in commands("make")] == [["make", "demo"], ["make", "test"]]
    assert {words[1] for words in commands("sait-deploy")} >= {"export", "bench", "predict"}


@pytest.mark.slow
def test_the_commands_run_in_their_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process; ``make demo`` is where they are processes."""
    monkeypatch.chdir(folder)
    ran = 0
    for words in commands("sait-deploy"):
        if NEEDS_NETWORK in words or words[1] == ENDS_WHEN_STOPPED:
            continue
        with pytest.raises(SystemExit) as leaving:
            run([*words[1:], *_QUICK.get(words[1], ())])
        assert not leaving.value.code, f"{words}: {capsys.readouterr().err}"
        ran += 1
    assert ran >= 3
    assert any((folder / "pictures").iterdir())
    capsys.readouterr()
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
        assert capsys.readouterr().out.strip()


def test_the_command_that_needs_weights_from_the_network_parses() -> None:
    """Everything but the download: the same command with random weights in place of pretrained ones is accepted."""
    (words,) = [words for words in commands("sait-deploy") if NEEDS_NETWORK in words]
    from sait_deploy.cli.export import command

    context = command.make_context("export", words[2:])
    assert context.params["pretrained"] is True
    assert context.params["densities"]


@pytest.mark.slow
def test_make_demo_runs_from_start_to_end(tmp_path: Path) -> None:
    """`make demo` in this environment, which `make test` made; elsewhere it would install into a foreign one."""
    environment = Path(sys.prefix)
    if not (environment / ".test").exists():
        pytest.skip("not in an environment made by `make test`")
    quick = [f"{name.upper()}={' '.join(_QUICK[name])}" for name in ("bench", "tune", "evaluate")]
    quick += [
        f"BARE={' '.join(_QUICK['bench'])}",
        "COMPOSE=--per-class 4",
        "QUANTIZE=--images digits --min-agreement 0",
    ]
    command = ["make", "demo", f"VENV={environment}", f"DEMO={tmp_path / 'demo'}", *quick]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("adaptive.html", "choice.html"):
        assert (tmp_path / "demo" / name).stat().st_size > 1000
    assert list((tmp_path / "demo" / "pictures").glob("*.png"))


@pytest.mark.parametrize(
    "page", ["README.md", "benchmarks/RESULTS.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if not t.startswith("http")]
    for target in targets:
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_every_figure_is_the_one_in_a_committed_result_file() -> None:
    from benchmarks.figures import RESULTS, results, section

    assert section() in README, "run: python -m benchmarks.figures"
    assert RESULTS.read_text(encoding="utf-8") == results(), "run: python -m benchmarks.figures"


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(README.splitlines()) <= 120
