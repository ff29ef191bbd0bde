from dataclasses import replace

import pytest

from buttress.report.kinds import draw


def test_a_panel_per_network(two, drawn):
    pair = {name: findings[3] for name, findings in two.items()}
    html = draw(pair).html
    figures = drawn(html)
    assert len(figures) == 2
    assert "<h3>hardened</h3>" in html
    for figure, finding in zip(figures, pair.values(), strict=True):
        shade, edge, upper, lower = figure.data
        assert [list(row) for row in shade.z] == finding.data["probability"]
        assert list(shade.x) == finding.data["x"]
        assert (edge.contours.start, edge.contours.end) == (0.5, 0.5)
        assert (upper.name, lower.name) == ("upper", "lower")
        points = finding.data["points"]
        assert list(upper.y) == [y for y, label in zip(points["y"], points["label"], strict=True) if label == 0]
        assert len(upper.x) + len(lower.x) == len(points["x"])


@pytest.mark.parametrize(
    ("labels", "names"),
    [([1, 0, 1], ["upper", "lower"]), (["b", "a", "b"], ["a", "b"]), ([5, 0, 5], ["upper", "5"])],
)
def test_labels_are_names_or_indices(one, drawn, labels, names):
    finding = one["network"][3]
    points = {"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 2.0], "label": labels}
    (figure,) = drawn(draw({"network": replace(finding, data={**finding.data, "points": points})}).html)
    assert [trace.name for trace in figure.data[2:]] == names


@pytest.mark.parametrize("key", ["points", "classes"])
def test_what_may_be_missing(one, drawn, key):
    finding = one["network"][3]
    data = {k: v for k, v in finding.data.items() if k != key}
    assert len(drawn(draw({"network": replace(finding, data=data)}).html)) == 1


def test_an_empty_finding_is_drawn(one, drawn):
    assert drawn(draw({"network": replace(one["network"][3], data={})}).html) == []
