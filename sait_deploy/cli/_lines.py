"""Lines on stderr: whole in a pipe, and broken between words in a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from sait_deploy.reports.escape import plain


def wrapped(text: str, columns: int) -> str:
    """Returns a text in lines of at most so many columns; no word is broken, and what is indented stays whole."""
    if text.startswith(" ") or len(text) <= columns:
        return text
    return textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)


def say(line: str) -> None:
    """Prints a line on stderr."""
    text = plain(line)
    if sys.stderr is not None and sys.stderr.isatty():
        text = wrapped(text, shutil.get_terminal_size().columns)
    click.echo(text, err=True)
