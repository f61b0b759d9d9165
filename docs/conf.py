"""How ``make docs`` builds the site: MyST pages, the docstrings of public names, and the help of the command line."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import sait_deploy  # noqa: E402 - this checkout's, whatever is installed
from sait_deploy.cli import COMMANDS  # noqa: E402

project = "sait-deploy"
version = release = sait_deploy.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["README.md"]

html_theme = "furo"
html_title = f"sait-deploy {version}"
html_extra_path = ["cost.html"]
html_show_copyright = False

highlight_language = "default"
myst_heading_anchors = 3
smartquotes_action = "qe"  # two dashes are an option's
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_use_ivar = True


def site_links(_: Sphinx, page: str, source: list[str]) -> None:
    """Turns links to pages of the repository that the site does not have into their text; it has the results."""
    text = source[0].replace("(../benchmarks/RESULTS.md", "(results.md")
    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\.md(#[^)]*)?\)", r"\1", text)


def whole_text(_: Sphinx, what: str, *rest: Any) -> None:
    """Keeps napoleon from taking what stands before a colon in the first line on a value for the value's type."""
    if what == "attribute":
        rest[-1].insert(0, "\\")  # a first line that is nothing, and is not empty


def setup(app: Sphinx) -> None:
    """Connects the rule for links, and names the commands, whose functions are all called ``command``."""
    for name, entry in COMMANDS.items():
        importlib.import_module(entry.module).command.name = name
    app.connect("source-read", site_links)
    app.connect("autodoc-process-docstring", whole_text, priority=0)
