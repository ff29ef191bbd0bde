import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


@pytest.fixture
def finding():
    first = {"layer": "conv<1>", "kind": "Conv2d", "weights": 1500, "kurtosis": 5.25, "spread": 0.6}
    second = {"layer": "fc", "kind": "Linear", "weights": 40, "kurtosis": None, "spread": None}
    rows = [{**first, "small": 0.125, "largest": 0.75}, {**second, "small": 1.0, "largest": 0.0}]
    return Finding("weights", "Weights", "A verdict.", "info", {"layers": rows, "small": 0.147, "weights": 1540})


def test_a_row_per_layer_and_the_highest_kurtosis_is_marked(finding):
    section = draw({"network": finding})
    html = section.html
    assert "conv&lt;1&gt;" in html
    for text in ("Conv2d", "1,500", "5.25", "0.600", "12.5%", "0.750", "–", "100.0%"):
        assert f"<td>{text}</td>" in html
    assert html.count('class="vulnerable"') == 1
    assert html.index('class="vulnerable"') < html.index("conv&lt;1&gt;") < html.index('scope="row">fc')
    assert section.keys[0].values == {"network": "14.7%"}
    assert "<h3>" not in html


def test_a_table_per_network(finding):
    html = draw({"before": finding, "after": finding}).html
    assert [html.count(text) for text in ("<h3>before</h3>", "<h3>after</h3>", "<table>")] == [1, 1, 2]


def test_an_empty_finding_is_drawn():
    section = draw({"network": Finding("weights", "Weights", "None.", "info", {})})
    assert "<table>" not in section.html
    assert section.keys == ()
