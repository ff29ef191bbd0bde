from dataclasses import replace

import pytest

from buttress.report.kinds import Key, Section, draw, renderer
from buttress.report.kinds.table import nested


def test_a_kind_without_a_renderer_is_a_table(two):
    html = draw({name: findings[4] for name, findings in two.items()}).html
    assert "<h3>hardened</h3>" in html
    for text in ("checks", "zero gradients", "0.0125", "yes", "0.41, 0.409", "–"):
        assert text in html


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, "–"),
        ([], "–"),
        ({}, "–"),
        ("", "–"),
        (True, "yes"),
        (3, "3"),
        (0.5, "0.5"),
        ("<b>", "&lt;b&gt;"),
        (["<b>", 1], "&lt;b&gt;, 1"),
        (list(range(60)), ", ".join(map(str, range(50))) + " … (60 in all)"),
    ],
)
def test_plain_values(value, wanted):
    assert nested(value) == wanted


def test_rows_of_like_dictionaries():
    html = nested([{"a": 1, "<b>": 2}, {"a": 3}])
    assert '<th scope="col">a</th><th scope="col">&lt;b&gt;</th>' in html
    assert "<td>3</td><td>–</td>" in html


def test_a_long_table_is_cut_and_says_so():
    html = nested([[row] for row in range(53)])
    assert html.count("<tr>") == 50
    assert "3 more rows in findings.json" in html


def test_a_name_with_a_colon_imports_nothing(one):
    finding = replace(one["network"][4], kind="antigravity:nothing", data={"told": 1})
    assert "told" in draw({"network": finding}).html


def test_a_kind_of_the_users_own(one, monkeypatch):
    key = Key("Checks", {"network": "1"}, {})
    draw({"network": one["network"][4]})  # discovered
    monkeypatch.setitem(renderer._members, "trust", lambda findings: Section(f"<p>{len(findings)}</p>", (key,)))
    assert draw({"network": one["network"][4]}) == Section("<p>1</p>", (key,))
