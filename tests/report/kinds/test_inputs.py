import re
from dataclasses import replace

import numpy as np
import pytest
from tests.report.kinds.test_classes import build as build_classes

from buttress import report
from buttress.audits.base.finding import Finding
from buttress.audits.base.png import png
from buttress.report.kinds import draw

PICTURE = png(np.arange(64, dtype=np.uint8).reshape(8, 8))


def card(**changes):
    known = {"truth": "cat <a>", "answer": "dog", "attacked": "dog", "right": False, "robust": False, "margin": -0.5}
    return known | {"smallest": 0.0, "certified": 0.0, "confidence": 0.75, "picture": PICTURE} | changes


def build(**changes):
    cards = {"4": card(), "7": card(answer="cat <a>", right=True, margin=1.0, smallest=0.125, certified=0.0625)}
    cards["9"] = card(picture=None, values=[0.1, 2.0], length=30, smallest="inf", certified=None, margin=None)
    measured = {"ids": [4, 7, 9], "margin": [-0.5, 1.0, 2.0], "smallest": [0.0, 0.125, "inf"]}
    measured |= {"certified": [0.0, 0.0625, 0.05], "attacks": ["FMN-100", "PGD-20"], "left_out": {"FAB-20": "why"}}
    measured |= {"unknown": "", "right": 2, "crossed": []}
    data = {"attack": "PGD-20", "threat": "linf eps 0.1", "norm": "linf", "inputs": 3, "failing": 1, "wrong": 1}
    data |= {"measured": measured, "hardest": [7], "easiest": [9], "cards": cards, "features": "relu"}
    data |= {"groups": [{"inputs": 1, "sentence": "1 of 1 are cat taken for dog", "ids": [4, 99]}], "silhouette": 0.42}
    data |= {"labels": {"count": 5, "rate": 0.1, "suspects": [{"id": 4, "suggested": "dog"}]}, "weakest": None}
    data |= {"by_class": [{"class": "cat <a>", "index": 0, "failing": 12, "inputs": 40, "ids": [4]}]}
    data |= {"by_layer": [{"layer": "relu#1", "ids": [7, 4], "displacement": [2.0, 1.0]}], "collect": "Collect."}
    return Finding("inputs", "Inputs", "A verdict.", "info", data | changes)


def test_the_curves_say_what_share_stands_at_each_size(drawn):
    (plot,) = drawn(draw({"network": build()}).html)
    stands, certified = plot.data
    assert (list(stands.x), list(stands.y)) == ([0.0, 0.125], pytest.approx([2 / 3, 1 / 3]))
    assert (list(certified.x), list(certified.y)) == ([0.0, 0.05, 0.0625], pytest.approx([2 / 3, 1 / 3, 0]))


def test_each_picture_is_held_once_and_shown_wherever_it_is_listed():
    html = draw({"network": build()}).html
    assert html.count(PICTURE) == 2
    assert html.count('aria-label="input 4"') == 4  # in its group, among the labels, of its class and of the layer
    for text in (
        "cat &lt;a&gt;: 12 of 40 fail",
        "suggested: dog",
        "smallest 0.125, certified 0.0625",
        "0.100, 2.00, …",
    ):
        assert text in html
    for text in ("smallest none found", "margin 1.00", "mean silhouette 0.42", "FAB-20 did not search: why."):
        assert text in html
    assert "99" not in re.sub(r"[\w+/]{40,}", "", html).replace("0.99", "")


def test_only_pictures_of_ours_are_shown():
    html = draw({"network": build(cards={"7": card(picture='https://example.org/"x.png')})}).html
    assert "example.org" not in html


@pytest.mark.parametrize("data", [{}, {"cards": {}}])
def test_nothing_to_show(data):
    finding = replace(build(cards={}, groups=[], hardest=[], easiest=[]), data=data) if not data else build(cards={})
    assert isinstance(draw({"network": finding}).html, str)


def test_classes_and_layers_lead_to_their_inputs(tmp_path, one):
    """Every link in the page has what it leads to, also of two networks of one name's beginning."""
    classes = build_classes(0.25)
    layers = next(finding for finding in one["network"] if finding.kind == "layers")
    networks = {name: [classes, layers, build()] for name in ("a", "a b")}
    html = report.write(tmp_path, networks, {}, title="t", headline="h").read_text()
    links = re.findall(r'href="#([\w-]+)">([^<]*)<', html)
    assert [text for _, text in links] == ["cat &lt;a&gt; (12)", "cat &lt;a&gt; (12)", "relu#1 (2)", "relu#1 (2)"]
    assert len({target for target, _ in links}) == 4
    for target, _ in links:
        assert html.count(f'id="{target}"') == 1
    drawn_again = report.rewrite(tmp_path / "findings.json").read_text()
    assert drawn_again == html


def test_without_the_audit_there_are_no_links(tmp_path):
    html = report.write(tmp_path, {"net": [build_classes(0.25)]}, {}, title="t", headline="h").read_text()
    assert 'href="#inputs' not in html
