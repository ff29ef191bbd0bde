from dataclasses import replace

import numpy as np
import pytest

from buttress.audits.base.finding import Finding
from buttress.audits.base.png import png
from buttress.report.kinds import draw

GREY = png(np.full((8, 8), 90, np.uint8))


@pytest.fixture
def finding():
    axis = [-1.0, 0.0, 1.0]
    items = [
        {"step": step, "score": step, "label": label, "confidence": 0.9, "image": GREY}
        for step, label in ((-1.5, "<three>"), (0.0, "<three>"), (1.5, "eight"))
    ]
    data = {
        **{"x": axis, "y": axis, "probability": [[0.1, 0.5, 0.9]] * 3, "other_classes": 0.125, "layer": "fc1"},
        **{"pair": ["<three>", "eight"], "items": items, "length_of_w": 0.4},
        "points": {"x": [-1.0, 1.0, -0.9], "y": [0.0, 0.1, 0.2], "label": ["<three>", "eight", "<three>"]},
    }
    return Finding("latent-boundary", "Latent boundary", "A decoded three becomes eight.", "info", data)


def test_a_strip_and_a_plane(finding, drawn):
    html = draw({"network": finding}).html
    (figure,) = drawn(html)
    shade, edge, source, target = figure.data
    assert [list(row) for row in shade.z] == finding.data["probability"]
    assert (edge.contours.start, edge.contours.end) == (0.5, 0.5)
    assert (list(source.x), list(target.x)) == ([-1.0, -0.9], [1.0])
    assert html.count(GREY) == 3
    assert "+1.5" in html
    assert '<span class="wrong">eight</span>' in html
    assert "<three>" not in html
    assert "one &lt;three&gt;, moved" in html
    assert "On 12.5% of it" in html
    assert "<h3>" not in html


def test_a_panel_per_network(finding, drawn):
    html = draw({"one": finding, "two": finding}).html
    assert len(drawn(html)) == 2
    assert "<h3>two</h3>" in html


@pytest.mark.parametrize("key", ["points", "pair", "items", "other_classes", "layer"])
def test_what_may_be_missing(finding, drawn, key):
    data = {k: v for k, v in finding.data.items() if k != key}
    assert len(drawn(draw({"network": replace(finding, data=data)}).html)) == 1


def test_an_image_from_elsewhere_is_not_fetched(finding):
    items = [{**finding.data["items"][0], "image": "https://example.org/a.png"}]
    html = draw({"network": replace(finding, data={**finding.data, "items": items})}).html
    assert "example.org" not in html
    assert "no image" in html


def test_an_empty_finding_is_drawn(finding, drawn):
    assert drawn(draw({"network": replace(finding, data={})}).html) == []
