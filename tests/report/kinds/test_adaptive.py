import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def share(value):
    return {"accuracy": value, "low": value - 0.05, "high": value + 0.05}


def row(label, kind, success, missed, standing):
    costs = {"forwards": 101.5, "backwards": 100.0, "seconds": 0.012}
    return {"label": label, "kind": kind, "inputs": 60, "beaten": success, "missed": missed, "alone": 1} | {
        "standing": standing and share(standing),
        **costs,
    }


@pytest.fixture
def finding():
    rows = [row("PGD-20", "reference", 20, 0, 0.5), row("PGD-20 on 'first <pass>'", "variant", 31, 13, None)]
    data = {"attack": "PGD-20", "norm": "linf", "eps": 0.2, "inputs": 60, "seed": 3, "clean": share(0.8)}
    data |= {"reference": share(0.5), "worst": share(0.25), "rows": rows, "total": {"forwards": 203, "backwards": 200}}
    data |= {"curve": [{"eps": 0.0, **share(0.8)}, {"eps": 0.4, **share(0.0)}], "curve_label": "PGD-20 (margin)"}
    data |= {"ablations": [{"label": "zero <g>", "clean": share(0.7), "reference": share(0.6)}], "cascade": True}
    data |= {"not_run": [{"label": "Square-5", "reason": "No <box>."}], "random": True}
    return Finding("adaptive", "What remains?", "Little.", "bad", data)


def test_attacks_worst_case_ablations_and_what_did_not_run(finding, drawn):
    section = draw({"network": finding})
    (figure,) = drawn(section.html)
    assert (list(figure.data[0].x), list(figure.data[0].y)) == ([0.0, 0.4], [0.8, 0.0])
    assert (list(figure.data[1].x), list(figure.data[1].y)) == ([0.2], [0.25])
    html = section.html
    assert html.count('class="vulnerable"') == 1
    assert html.index('class="vulnerable"') < html.index("PGD-20 on &#39;first &lt;pass&gt;&#39;")
    for text in (
        "50.0%",
        "45.0–55.0%",
        "25.0%",
        "31",
        "13",
        "12.0 ms",
        "zero &lt;g&gt;",
        "the network itself",
        "60.0%",
    ):
        assert f">{text}<" in html
    assert "Square-5: No &lt;box&gt;." in html
    assert "Missed by PGD-20" in html
    assert "only on inputs on which none before it was successful" in html
    assert "linf ε = 0.2, 60 inputs, seed 3, all attacks together 203 forward and 200 backward passes an input" in html
    assert [key.values for key in section.keys] == [{"network": "25.0%"}, {"network": "50.0%"}]


def test_networks_stand_together(finding, drawn):
    section = draw({"before": finding, "after": finding})
    (figure,) = drawn(section.html)
    assert [trace.name for trace in figure.data] == ["before", "before, worst case", "after", "after, worst case"]
    assert section.html.count("<h3>") == 2


def test_what_may_be_missing(finding, drawn):
    partial = {name: finding.data[name] for name in ("rows", "worst")}
    section = draw({"network": Finding("adaptive", "", "", "info", {**partial, "reference": None})})
    assert drawn(section.html) == []
    assert "Without a part" not in section.html
    assert [key.label for key in section.keys] == ["Worst case of adaptive attacks"]
    empty = draw({"network": Finding("adaptive", "", "", "info", {})})
    assert (empty.html, empty.keys) == ("", ())
