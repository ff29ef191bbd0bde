import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def cell(share, successful=4):
    low, high = max(0.0, share - 0.1), min(1.0, share + 0.1)
    about = {"inputs": 10, "beaten": round(10 * share), "share": share, "low": low, "high": high}
    return {**about, "successful": successful, "carried": round(successful * share)}


def finding(attacks):
    return Finding("transfer", "Transfer", "So it is.", "info", {"attacks": attacks, "beyond_own": []})


@pytest.fixture
def pair():
    shares = {"first": (0.8, 0.3), "second <b>": (0.5, 0.9)}
    return {
        name: finding(
            [
                {
                    "attack": attack,
                    "threat": "linf eps 0.1",
                    "kept": attack == "FGSM",
                    "cells": {target: cell(share) for target, share in zip(shares, own, strict=True)},
                }
                for attack in ("PGD-20", "FGSM")
            ]
        )
        for name, own in shares.items()
    }


def test_a_heat_map_for_each_attack_crafted_on_down_and_tried_on_across(pair, drawn):
    html = draw(pair).html
    for figure in drawn(html):
        (shade,) = figure.data
        assert [list(row) for row in shade.z] == [[0.8, 0.3], [0.5, 0.9]]
        assert list(shade.x) == list(shade.y) == ["first", "second &lt;b&gt;"]
        assert [list(row) for row in shade.text] == [["80.0%", "30.0%"], ["50.0%", "90.0%"]]
        assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("tried on", "crafted on")
        assert "30.0%</b> (20.0–40.0%) of 10 inputs" in shade.hovertext[0][1]
    assert len(drawn(html)) == 2
    assert "<h3>PGD-20 (linf eps 0.1)</h3>" in html
    assert (html.count("<td>kept</td>"), html.count("<td>new</td>")) == (4, 4)


def test_what_was_left_out_or_not_tried_is_told(pair, drawn):
    row = {"attack": "PGD-20", "threat": "linf eps 0.1", "cells": {}, "kept": False}
    closed = finding([{**row, "left_out": "the network gives no gradients"}] * 2)
    nothing = {"inputs": 0, "beaten": 0, "share": None, "low": None, "high": None, "successful": 0, "carried": 0}
    pair["first"].data["attacks"][0]["cells"]["closed"] = nothing
    html = draw({**pair, "closed": closed}).html
    shade = drawn(html)[0].data[0]
    assert list(shade.z[2]) == [None, None, None]
    assert shade.z[0][2] is None
    assert html.count("left out: the network gives no gradients") == 2
    assert "–" in html
