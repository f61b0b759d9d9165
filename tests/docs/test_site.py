"""The site is built without a warning, from pages and docstrings alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sait_deploy
from sait_deploy.cli import COMMANDS
from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("sphinx", "myst_parser", "furo", "sphinx_click"):
        pytest.importorskip(package, reason="the site is built with the extra docs")
    place = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-d", str(place / "trees")]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(place / "html")]
    python = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": python}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return place / "html"


def test_every_page_is_listed() -> None:
    """``docs/README.md`` lists the pages for who reads them in the repository, ``index.md`` for the site."""
    index, listed = ((DOCS / name).read_text(encoding="utf-8") for name in ("index.md", "README.md"))
    for page in sorted(DOCS.glob("*.md")):
        if page.name not in ("index.md", "README.md"):
            assert f"\n{page.stem}\n" in index, page.name
            assert f"({page.name})" in listed, page.name


@pytest.mark.slow
def test_the_site_has_every_page_command_and_name(site: Path) -> None:
    assert {page.stem for page in DOCS.glob("*.md")} - {"README"} <= {page.stem for page in site.glob("*.html")}
    anchors = set(re.findall(r'id="([^"]+)"', (site / "command-line.html").read_text(encoding="utf-8")))
    assert {f"sait-deploy-{command}" for command in COMMANDS} <= anchors
    anchors = set(re.findall(r'id="([^"]+)"', (site / "python.html").read_text(encoding="utf-8")))
    public = {name for name in sait_deploy.__all__ if callable(getattr(sait_deploy, name))}
    assert {f"sait_deploy.{name}" for name in public} <= anchors


@pytest.mark.slow
def test_texts_are_as_they_stand_in_the_code(site: Path) -> None:
    assert "(--config)" in (site / "command-line.html").read_text(encoding="utf-8"), "two dashes became one"
    python = re.sub("<[^>]+>", "", (site / "python.html").read_text(encoding="utf-8"))
    assert "Those whose answers mean something: trained weights, with a head." in " ".join(python.split())


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        sources = re.findall(
            r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8")
        )
        assert not sources, page.name
