"""The HTML page: well-formed, self-contained, complete, and safe whatever its text is."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.reports.escape import plain
from sait_deploy.reports.html import to_html
from tests.reports.sample import HOSTILE, make_document, make_table

VOID = {"meta", "br", "wbr"}


class Page(HTMLParser):
    """Checks that elements nest, and gathers tags, attributes and the text inside each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def inside(self, tag: str) -> list[str]:
        """Returns the texts of elements of a kind."""
        return [text for name, text in self.texts if name == tag]


def test_the_page_is_one_document_that_loads_nothing() -> None:
    page = Page(to_html(make_document()))
    assert page.tags[:2] == ["html", "head"]
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert any(value is not None and value.startswith("default-src 'none'") for _, value in page.attributes)


def test_ids_are_unique_and_references_lead_to_them() -> None:
    page = Page(to_html(make_document()))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for name, value in page.attributes if name == "aria-labelledby"} <= set(ids)


def test_every_cell_is_there_and_a_batch_once_for_its_group() -> None:
    page, table = Page(to_html(make_document("mass 0.95, block 4"))), make_table()
    assert page.inside("th") == ["batch", "variant", *(c.head for c in table.columns[2:]), "1", *NAMES, "8", *NAMES]
    assert page.inside("td") == [cell.text for row in table.rows for cell in row.cells[2:]]
    assert [value for name, value in page.attributes if name == "rowspan"] == ["3", "3"]


NAMES = ("dense", "mass 0.95, block 4", "density 0.5")


def test_a_document_says_all_there_is_to_know_and_warnings_before_other_notes() -> None:
    page = Page(to_html(make_document()))
    assert page.inside("h1") == ["deit"]
    assert page.inside("h3") == ["Speed deit", "All figures", "deit"]
    assert page.inside("li") == ["careful: deit", "worth knowing", "a table's own note", "line deit"]
    assert (page.inside("dt"), page.inside("dd"), page.inside("figcaption")) == (["deit"], ["deit"], ["deit"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_made_for_light_and_dark(scheme: str) -> None:
    assert scheme in to_html(make_document()).partition("</style>")[0]


@settings(deadline=None, max_examples=30)
@given(st.one_of(st.text(min_size=1), st.just(HOSTILE)))
def test_any_text_is_text(text: str) -> None:
    page = Page(to_html(make_document(text)))
    assert page.tags.count("script") == 0
    shown = " ".join(" ".join(data for _, data in page.texts).split())
    assert " ".join(f"about {plain(text)}".split()) in shown
