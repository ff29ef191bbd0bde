from dataclasses import replace

import numpy as np
import pytest

from buttress.audits.base.finding import Finding
from buttress.audits.base.png import png
from buttress.report.kinds import draw

PICTURE = png(np.arange(36, dtype=np.uint8).reshape(6, 6))


@pytest.fixture
def finding():
    measure = {"mean": 0.4123, "low": 0.391, "high": 0.44, "inputs": 20}
    names = ("correlation", "energy_inside", "salient_area", "deletion_gradient", "deletion_occlusion")
    images = {"input": PICTURE, "occlusion": PICTURE, "gradient": PICTURE}
    items = [{"truth": "<coat>", "answer": answer, "images": images} for answer in ("<coat>", "shirt")]
    data = {"measures": dict.fromkeys(names, measure), "items": items, "threshold": 0.1, "window": 3}
    return Finding("saliency", "Saliency", "It looks.", "info", data)


def test_measures_and_maps(finding):
    html = draw({"network": finding}).html
    assert html.count("<td>0.412 (0.391 to 0.440)</td>") == 5
    assert html.count("<td>–</td>") == 1  # chance was not measured
    assert html.count(f'src="{PICTURE}"') == 6
    assert html.count('class="small"') == 6
    assert '<span class="right">✓ &lt;coat&gt;</span>' in html
    assert '<span class="wrong">✗ shirt</span>' in html
    assert "costs the true class 0.1 or more" in html.replace("\n", " ")
    assert "<h3>" not in html


def test_networks_stand_side_by_side(finding):
    html = draw({"first": finding, "second": finding}).html
    assert html.count("<td>0.412 (0.391 to 0.440)</td>") == 10
    assert html.index("<h3>first</h3>") < html.index("<h3>second</h3>")
    assert '<th scope="col">second</th>' in html


def test_only_embedded_images_are_shown(finding):
    items = [{**finding.data["items"][0], "images": {"input": "https://example.org/x.png"}}]
    html = draw({"network": replace(finding, data={**finding.data, "items": items})}).html
    assert html.count("no image") == 3
    assert "example.org" not in html


@pytest.mark.parametrize("data", [{}, {"measures": {}, "items": []}])
def test_an_empty_finding(finding, data):
    assert draw({"network": replace(finding, data=data)}).html.strip() == ""


def test_what_is_not_defined(finding):
    measures = {"correlation": {"mean": None, "low": None, "high": None, "inputs": 0}}
    html = draw({"network": replace(finding, data={"measures": measures})}).html
    assert html.count("<td>–</td>") == 6
    assert "gallery" not in html
