"""The homing table: pairs with most inputs first, then all of them."""

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def finding(**changes):
    rates = {"accuracy": 0.75, "low": 0.5, "high": 0.9, "control": {"accuracy": 0.25}, "others": 0.125}
    few = {"class": "cat <a>", "confound": "dog", "inputs": 4, "control_class": "cow", **rates}
    many = {"class": "cow", "confound": "dog", "inputs": 40, "control_class": None, **rates, "control": None}
    every = {"inputs": 44, **rates, "accuracy": 0.7}
    beyond = {"difference": 0.625, "low": -0.015, "high": 0.75}
    data = {"rows": [few, many], "all": every, "beyond_others": beyond, **changes}
    return Finding("homing", "Homing", "A verdict.", "info", data)


def test_rows_controls_and_the_key_figure():
    section = draw({"network": finding()})
    html = section.html
    assert html.index("40") < html.index("cat &lt;a&gt;") < html.index("44")
    for text in ("75.0%", "50.0–90.0%", "25.0%", "12.5%", "+62.5 points (−1.5 to +75.0)"):
        assert text in html
    assert section.keys[0].values == {"network": "70.0%"}


def test_without_control_or_rows():
    assert "no network without another class" in draw({"network": finding(beyond_others=None)}).html
    assert draw({"network": finding(rows=[])}).html == ""
