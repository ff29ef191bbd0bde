import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def row(name, a, k, modulus, stable, start=False):
    roots = [[1.0, 0.0], [-modulus, 0.0], [0.0, 0.25]]
    content = {"block": name, "start": start, "a": a, "b0": 1.5, "k": k, "trained": False, "order": 2}
    return {**content, "roots": roots, "modulus": modulus, "stable": stable}


@pytest.fixture
def finding():
    rows = [
        row("blocks.0", [1.0, 0.0, 0.0], None, 0.0, True, start=True),
        row("blocks<1>", [0.75, 0.1, 0.15], -3.0, 0.408, True),
        row("blocks.2", [-0.75, 2.0, -0.25], -0.5, 1.883, False),
    ]
    growth = {"label": "gaussian", "differences": [1.0, 2.0, 4.0, 3.0], "growth": 3.0, "per_block": 1.44}
    data = {"blocks": rows, "modulus": 1.883, "norms": [5.0, 6.0, 7.0, 8.0], "noise": growth}
    data["attack"] = {**growth, "label": "PGD-20", "differences": [1.0, 3.0, 9.0, 9.5]}
    return Finding("zero-stability", "Zero stability", "One is not.", "warning", data)


def test_three_figures_and_a_table(finding, drawn):
    section = draw({"network": finding})
    region, circle, states = drawn(section.html)
    assert list(region.data[-1].x) == [-3.0, -0.5]
    assert list(region.data[-1].y) == [0.408, 1.883]
    assert [(shape.x0, shape.x1) for shape in region.layout.shapes] == [(-6.0, -1.0), (1 / 3, 6.0)]
    curve = dict(zip(region.data[0].x, region.data[0].y, strict=True))
    assert (curve[-1.8], curve[-1.0]) == (pytest.approx(1 / 3), pytest.approx(1))
    assert list(circle.data[1].x) == [1.0, -0.408, 0.0, 1.0, -1.883, 0.0]
    assert [trace.name for trace in states.data] == ["state", "difference, gaussian", "difference, PGD-20"]
    assert list(states.data[2].y) == [1.0, 3.0, 9.0, 9.5]
    html = section.html
    assert "blocks&lt;1&gt;" in html
    assert html.count('class="vulnerable"') == 1
    assert html.index('class="vulnerable"') > html.index("blocks&lt;1&gt;")
    for text in ("start", "0.408", "1.88", "−3.00", "no", "yes"):
        assert f"<td>{text}</td>" in html
    assert section.keys[0].values == {"network": "1.88"}


def test_networks_stand_together(finding, drawn):
    html = draw({"before": finding, "after": finding}).html
    figures = drawn(html)
    assert len(figures) == 3
    assert [trace.name for trace in figures[1].data[1:]] == ["before", "after"]
    assert figures[2].data[4].name == "after · difference, gaussian"
    assert html.count("<table>") == 2


def test_without_a_k_there_is_no_region(finding, drawn):
    rows = [{**one, "k": None} for one in finding.data["blocks"]]
    html = draw({"network": Finding("zero-stability", "", "", "info", {**finding.data, "blocks": rows})}).html
    assert len(drawn(html)) == 2


@pytest.mark.parametrize("data", [{}, {"blocks": []}])
def test_an_empty_finding(data):
    section = draw({"network": Finding("zero-stability", "Zero stability", "None.", "info", data)})
    assert (section.html, section.keys) == ("", ())


def test_what_may_be_missing(finding, drawn):
    html = draw({"network": Finding("zero-stability", "", "", "info", {"blocks": finding.data["blocks"]})}).html
    assert len(drawn(html)) == 2
