"""Text from outside made safe for terminals and Markdown, and short enough for drawings."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """Returns the text on one line: white space becomes spaces, other unprintable characters U+FFFD."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def escape_markdown(text: str) -> str:
    """Returns the text for use in a GitHub Markdown paragraph, list item or table cell."""
    escaped = re.sub(r"[\\`*<>\[\]|~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", plain(text).strip())
    # What would begin a list, a heading or a rule at the start of a block.
    return re.sub(r"^(?:(\d+)(?=[.)](?:\s|$))|(?=[-+=#]))", r"\1\\", escaped)


def shorten(text: str, characters: int) -> str:
    """Returns the text in at most ``characters`` characters, with an ellipsis in the middle where some went."""
    if len(text) <= characters:
        return text
    tail = (characters - 1) // 2
    return f"{text[: characters - 1 - tail]}…{text[len(text) - tail :]}"
