"""The page that computes costs from a bench file, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.browser import Page, chromium

ROOT = Path(__file__).parents[2]


def choose(page: Page, file: Path) -> None:
    root = page.tell("DOM.getDocument")["root"]["nodeId"]
    node = page.tell("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.tell("DOM.setFileInputFiles", files=[str(file)], nodeId=node)


@pytest.mark.slow
def test_costs_follow_from_measured_speed_price_and_load(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    report.write_text(
        '{"variants": [{"id": "a", "label": "dense", "runtime": "onnxruntime", "precision": "fp32"},'
        ' {"id": "b", "label": "mass 0.9", "runtime": "openvino", "precision": null}],'
        ' "rows": [{"variant": "a", "batch": 8, "images_per_second": 50},'
        ' {"variant": "b", "batch": 1, "images_per_second": 100}]}'
    )
    with chromium(tmp_path / "profile") as page:
        page.tell("Page.navigate", url=(ROOT / "docs" / "cost.html").as_uri())
        page.wait("document.readyState === 'complete' && document.getElementById('costs') !== null")
        choose(page, report)
        page.wait("document.getElementById('costs').rows.length === 3")
        # An hour at 1, computing 60 % of it at 100 images a second, is 216,000 images.
        assert page.value("document.getElementById('costs').rows[1].innerText").split("\t") == [
            *("mass 0.9, openvino", "1", "100.0", "4.63")
        ]
        assert page.value("document.getElementById('costs').rows[2].innerText").split("\t")[-1] == "9.26"
        page.value("document.getElementById('price').value = 2")
        page.value("document.getElementById('price').dispatchEvent(new Event('input'))")
        assert page.value("document.getElementById('costs').rows[1].innerText").endswith("9.26")
        (tmp_path / "other.json").write_text("[]")
        choose(page, tmp_path / "other.json")
        assert "no file of sait-deploy bench" in page.wait("document.getElementById('error').innerText")
        assert not [address for address in page.requested if not address.startswith(("file:", "about:"))]
