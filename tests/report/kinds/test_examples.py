from dataclasses import replace

import pytest

from buttress.report.kinds import draw


@pytest.fixture
def finding(one):
    return one["network"][2]


def with_item(finding, **item):
    return replace(finding, data={**finding.data, "items": [{**finding.data["items"][0], **item}]})


def test_images_and_answers(finding):
    html = draw({"network": finding}).html
    for item in finding.data["items"]:
        assert all(html.count(f'src="{address}"') >= 1 for address in item["images"].values())
    assert html.count("<img") == 18
    assert html.count('<span class="right">✓ T-shirt/top</span>') == 6
    assert html.count('<span class="wrong">✗ Shirt</span>') == 6
    assert "98.1%" in html
    assert "change × 16<" in html


def test_each_network_has_a_gallery(two):
    html = draw({name: findings[2] for name, findings in two.items()}).html
    assert html.index("<h3>baseline</h3>") < html.index("<h3>hardened</h3>")
    assert html.count('class="gallery"') == 2


@pytest.mark.parametrize(
    "address", [None, 3, "https://example.org/x.png", "data:text/html;base64,aGk=", "data:image/png;base64,aGk="]
)
def test_only_embedded_images_are_shown(finding, address):
    images = {**finding.data["items"][0]["images"], "adversarial": address}
    html = draw({"network": with_item(finding, images=images)}).html
    assert html.count("<img") == 2
    assert html.count("no image") == 1
    assert "example.org" not in html


def test_small_images_are_enlarged_pixel_by_pixel(finding):
    import numpy as np

    from buttress.audits.base.png import png

    sizes = {"clean": 28, "adversarial": 95, "difference": 96}
    images = {what: png(np.zeros((4, width), np.uint8)) for what, width in sizes.items()}
    assert draw({"network": with_item(finding, images=images)}).html.count('class="small"') == 2


@pytest.mark.parametrize("data", [{}, {"items": []}])
def test_an_empty_gallery(finding, data):
    assert draw({"network": replace(finding, data=data)}).html == ""


def test_what_may_be_missing(finding):
    answer = {"label": "Shirt"}
    item = {"truth": "Shirt", "clean": answer, "adversarial": answer}
    html = draw({"network": replace(finding, data={"items": [item]})}).html
    assert html.count("no image") == 3
    assert html.count("✓ Shirt") == 2
