import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw

RANKS = {"rank": [1, 2, 3], "low": [1, 2, 2], "high": [1, 3, 3]}
TURNED = {part: ends[::-1] for part, ends in RANKS.items()}


def finding(by, layers=("a", "b", "c"), alike=True, shifted=()):
    depth = [k / (len(layers) - 1) for k in range(len(layers))]
    data = {"layers": list(layers), "depth": depth, "same_layers": alike, "by": by}
    data["moves"] = {"margin": {"shifted": list(shifted)}}
    return Finding("layer-comparison", "Layers", "", "info", data)


@pytest.fixture
def pair():
    measures = {"margin": [0.5, 0.8, None], "tolerance": [0.1, 0.2, 0.3]}
    first = finding({name: {"values": values, **RANKS} for name, values in measures.items()})
    second = finding({name: {"values": values, **TURNED} for name, values in measures.items()}, shifted=["a"])
    return {"first": first, "second": second}


def test_a_line_for_each_network_and_measure_on_one_axis(pair, drawn):
    html = draw(pair).html
    values, places = drawn(html)
    assert [trace.name for trace in values.data] == ["first", "second"] * 2
    assert [trace.visible for trace in values.data] == [True, True, False, False]
    assert all(list(trace.x) == [0, 0.5, 1] for trace in values.data)
    assert list(values.data[0].y) == [0.5, 0.8, None]
    (menu,) = values.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["margin", "tolerance"]
    assert menu.buttons[1].args[0] == {"visible": [False, False, True, True]}
    assert menu.buttons[1].args[1] == {"yaxis.title.text": "tolerance"}
    assert list(places.data[0].y) == [1, 2, 3]
    assert (list(places.data[0].error_y.array), list(places.data[0].error_y.arrayminus)) == ([0, 1, 0], [0, 0, 1])
    assert places.layout.yaxis.autorange == "reversed"
    assert "place 2 (2–3)" in places.data[0].hovertext[1]


def test_layers_that_moved_are_marked(pair):
    html = draw(pair).html
    assert html.count('<span class="tag">moved</span>') == 1
    assert html.count("<details") == 2


def test_of_other_layers_there_is_no_table(pair, drawn):
    deep = finding({"margin": {"values": [1.0, 2.0], "rank": [1, 2], "low": [1, 1], "high": [2, 2]}}, ("x", "y"), False)
    html = draw({**pair, "deep": deep}).html
    assert "<details" not in html
    assert list(drawn(html)[0].data[2].x) == [0, 1]


def test_without_a_common_measure_nothing_is_drawn(pair):
    assert draw({**pair, "other": finding({})}).html == ""
