"""The tutorial as a notebook: its blocks are run, and what they print goes into the page and into the notebook.

    python -m tests.docs.tutorial

writes ``docs/tutorial.md`` and ``docs/tutorial.ipynb`` again.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import nbclient
import nbformat
from nbformat import v4

from tests.docs.blocks import ROOT

PAGE: Final = ROOT / "docs" / "tutorial.md"
NOTEBOOK: Final = PAGE.with_suffix(".ipynb")
_PRINTED: Final = r"(?:\nIt prints:\n\n```text\n.*?^```\n)?"
_BLOCK: Final = re.compile(r"^```(python|sh)\n(.*?)^```\n" + _PRINTED, re.DOTALL | re.MULTILINE)

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_SHELL: Final = "%%bash\n"


def cells(text: str) -> list[Any]:
    """Returns the page's cells: its text in Markdown, and its blocks, those of the shell as ``%%bash``."""
    found, end = [], 0
    for match in _BLOCK.finditer(text):
        found.append(v4.new_markdown_cell(text[end : match.start()].strip()))
        code = match[2].strip()
        found.append(v4.new_code_cell(code if match[1] == "python" else _SHELL + code))
        end = match.end()
    found.append(v4.new_markdown_cell(text[end:].strip()))
    for number, cell in enumerate(found):
        cell["id"] = f"cell-{number}"
    return found


def run(folder: Path) -> Any:
    """Runs the tutorial in a folder and returns the notebook, with what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    python = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    before = dict(os.environ)
    os.environ.update(PATH=path, PYTHONPATH=python)
    try:
        notebook = v4.new_notebook(cells=cells(PAGE.read_text(encoding="utf-8")))
        client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}})
        return client.execute()
    finally:
        os.environ.clear()
        os.environ.update(before)


def printed(cell: Any) -> str:
    """Returns what a cell printed, without colours: of commands what they say on stderr, then their results."""
    streams = [output for output in cell.get("outputs", ()) if output["output_type"] == "stream"]
    wanted = ("stderr", "stdout") if cell["source"].startswith(_SHELL) else ("stdout",)
    said = "".join(output["text"] for name in wanted for output in streams if output["name"] == name)
    return "".join(line.rstrip() + "\n" for line in _COLOUR.sub("", said).splitlines())


def page(notebook: Any) -> str:
    """Returns the page with what each block printed below it."""
    parts = []
    for cell in notebook["cells"]:
        source = cell["source"]
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        language = "sh" if source.startswith(_SHELL) else "python"
        parts.append(f"```{language}\n{source.removeprefix(_SHELL)}\n```")
        if printed(cell):
            parts.append(f"It prints:\n\n```text\n{printed(cell)}```")
    return "\n\n".join(part for part in parts if part) + "\n"


def tidied(notebook: Any) -> Any:
    """Returns the notebook without what differs from run to run beside its figures."""
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            text = printed(cell)
            cell["outputs"] = [v4.new_output("stream", name="stdout", text=text)] if text else []
    notebook["metadata"] = {"language_info": {"name": "python"}}
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        ran = tidied(run(Path(place)))
    PAGE.write_text(page(ran), encoding="utf-8")
    nbformat.write(ran, NOTEBOOK)
