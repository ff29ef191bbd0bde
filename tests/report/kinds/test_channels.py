from dataclasses import replace

import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


@pytest.fixture
def finding():
    row = {"inputs": 30, "clean": 0.9, "low": 0.3, "high": 0.6, "negative_clean": 0.2, "negative_attacked": 0.31}
    row |= {"pearson_clean": 0.5, "pearson_attacked": None, "l1": 4.2, "cosine": 0.12}
    row |= {"active_positive_clean": 0.8, "active_positive_attacked": 0.7}
    row |= {"active_negative_clean": 0.4, "active_negative_attacked": None}
    data = {
        "classes": [{"class": "<cat>", "accuracy": 0.5, **row}, {"class": "dog", "accuracy": 0.4, **row}],
        "mean": {"negative_attacked": 0.31},
        "curves": [{"class": "dog", "clean": [1.0, 0.5], "attacked": [0.7, 1.0], "relevance": [0.2, -0.1]}],
    }
    return Finding("channels", "Channels", "Some speak against it.", "info", data)


def test_the_table_and_the_curves(finding, drawn):
    section = draw({"network": finding})
    assert '<tr class="vulnerable"><th scope="row">dog</th>' in section.html
    assert "<cat>" not in section.html
    for cell in (
        "30",
        "90.0%",
        "40.0%",
        "30.0–60.0%",
        "20.0%",
        "31.0%",
        "0.500",
        "4.20",
        "0.120",
        "80.0%, 70.0%",
        "40.0%, –",
    ):
        assert f"<td>{cell}</td>" in section.html
    (figure,) = drawn(section.html)
    assert [list(trace.y) for trace in figure.data] == [[1.0, 0.5], [0.7, 1.0], [1.0]]
    assert list(figure.data[2].x) == [2]
    (key,) = section.keys
    assert key.values == {"network": "31.0%"}


def test_a_table_and_curves_per_network(finding, drawn):
    html = draw({"first": finding, "second": finding}).html
    assert "<h3>second</h3>" in html
    assert [figure.layout.title.text for figure in drawn(html)] == ["first · dog", "second · dog"]


@pytest.mark.parametrize("data", [{}, {"classes": []}])
def test_an_empty_finding(finding, data):
    section = draw({"network": replace(finding, data=data)})
    assert section.html.strip() == ""
    assert section.keys == ()


def test_what_may_be_missing(finding, drawn):
    html = draw({"network": replace(finding, data={"classes": [{"class": "dog", "accuracy": 0.4}]})}).html
    assert html.count("<td>–</td>") == 8
    assert drawn(html) == []
