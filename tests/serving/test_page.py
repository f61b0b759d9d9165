"""The page in a real browser: a picture is dropped, and its kept tokens are shown; nothing is loaded from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from sait_deploy import demo
from sait_deploy.serving.options import ModelsOptions
from tests.exported import TinyExport
from tests.serving.browser import Page, chromium
from tests.serving.served import Served, served

DIGIT = sorted((demo.IMAGES / "7").iterdir())[0]


def open_page(page: Page, server: Served) -> None:
    page.tell("Page.navigate", url=f"http://{server.address}/")
    page.wait("document.readyState === 'complete' && document.getElementById('drop') !== null")


@pytest.mark.slow
def test_a_dropped_picture_is_shown_with_its_kept_tokens(server: Served, tmp_path: Path) -> None:
    with chromium(tmp_path) as page:
        open_page(page, server)
        page.wait("document.getElementById('point').options.length === 4")
        page.value("document.getElementById('point').value = 'fast'")
        page.drop(DIGIT, "#drop")
        text = page.wait(
            "document.querySelector('#answer img')?.complete && document.querySelector('#answer').innerText"
        )
        assert "of 36 tokens were kept, at point fast." in text
        assert page.value("document.querySelector('#answer img').naturalWidth") > 100
        assert page.value("document.querySelectorAll('#answer td.share').length") == 5
        assert page.value("document.getElementById('error').innerText") == ""
        wrong = tmp_path / "wrong.png"
        wrong.write_text("no picture")
        page.drop(wrong, "#drop")
        assert "no image" in page.wait("document.getElementById('error').innerText")
        asked = [address for address in page.requested if not address.startswith(("data:", "about:"))]
        assert asked and all(address.startswith(f"http://{server.address}/") for address in asked), asked


@pytest.mark.slow
def test_the_page_asks_for_the_token_where_there_is_one(tiny: TinyExport, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the server needs Ray, which brings uvicorn and has no wheel here")
    with served(ModelsOptions(artifacts=(tiny.half.path,), threads=1), "s3cret") as server, chromium(tmp_path) as page:
        open_page(page, server)
        assert "no token" in page.wait("document.getElementById('error').innerText")
        page.wait("!document.getElementById('secret').hidden")
        page.value("document.getElementById('token').value = 's3cret'")
        page.value("document.getElementById('token').dispatchEvent(new Event('change'))")
        page.wait("document.getElementById('model').options.length === 1")
        page.drop(DIGIT, "#drop")
        assert "18 of 36 tokens" in page.wait("document.querySelector('#answer').innerText")
