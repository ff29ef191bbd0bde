"""The table of corruptions, styles and unseen attacks."""

from dataclasses import replace

import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def share(value):
    return {"accuracy": value, "low": value - 0.02, "high": value + 0.02}


def finding(shift=0.0):
    severities = [{"severity": s, **share(0.9 - 0.1 * s + shift)} for s in (1, 3)]
    rows = [
        {"kind": "corruption", "name": "jpeg", "label": "jpeg", **share(0.7 + shift), "severities": severities},
        {"kind": "corruption", "name": "gaussian", "label": "gaussian", **share(0.66), "severities": []},
        {"kind": "style", "name": "sketch", "label": "sketch", **share(0.4), "severities": severities},
        {"kind": "style", "name": "invert", "label": "invert", **share(0.1), "severities": []},
        {"kind": "seen attack", "name": "pgd", "label": "PGD-20", "norm": "linf", "eps": 8 / 255, **share(0.5)},
        {"kind": "unseen attack", "name": "pgd", "label": "PGD-20", "norm": "l2", "eps": 0.5, **share(0.31)},
        {"kind": "unseen attack", "name": "latent", "label": "latent", **share(0.42)},
    ]
    data = {"inputs": 1000, "seed": 4, "precision": "fp32", "interval": "exact", "severities": [1, 3], "rows": rows}
    parts = {"clean": share(0.91), "mean_corruption": share(0.68 + shift), "seen": share(0.5), "unseen": share(0.29)}
    parts["mean_style"] = share(0.25)
    return Finding("unseen", "Corruptions", "A sentence.", "good", {**data, **parts})


def cells(html, label):
    (row,) = [row for row in html.split("<tr>") if f'<th scope="row">{label}</th>' in row]
    return [part.split("</td>")[0].split(">")[-1] for part in row.split("<td")[1:]]


def test_a_row_for_each_with_severities_in_columns():
    html = draw({"network": finding()}).html
    assert cells(html, "as they are") == ["–", "91.0%", "89.0–93.0%", "–", "–"]
    assert cells(html, "jpeg") == ["corruption", "70.0%", "68.0–72.0%", "80.0%", "60.0%"]
    assert cells(html, "gaussian") == ["corruption", "66.0%", "64.0–68.0%", "–", "–"]
    assert cells(html, "all corruptions") == ["mean", "68.0%", "66.0–70.0%", "–", "–"]
    assert cells(html, "sketch") == ["style", "40.0%", "38.0–42.0%", "80.0%", "60.0%"]
    assert cells(html, "invert") == ["style", "10.0%", "8.0–12.0%", "–", "–"]
    assert cells(html, "all styles") == ["mean", "25.0%", "23.0–27.0%", "–", "–"]
    labels = [part.split("</th>")[0] for part in html.split('<th scope="row">')[1:]]
    assert labels[3:7] == ["all corruptions", "sketch", "invert", "all styles"]
    assert cells(html, "PGD-20 (l2, ε = 0.5)") == ["unseen attack", "31.0%", "29.0–33.0%", "–", "–"]
    assert cells(html, "PGD-20 (linf, ε = 8/255)")[0] == "seen attack"
    assert cells(html, "latent")[:2] == ["unseen attack", "42.0%"]
    assert "1,000 inputs, seed 4, intervals: exact" in html
    assert html.count('scope="rowgroup"') == 0


def test_key_figures_and_their_changes():
    section = draw({"before": finding(), "after": finding(0.05)})
    assert [key.label for key in section.keys] == [
        "Clean accuracy",
        "Mean corruption accuracy",
        "Mean style accuracy",
        "Robust accuracy, seen attacks",
        "Robust accuracy, unseen attacks",
    ]
    assert section.keys[1].values == {"before": "68.0%", "after": "73.0%"}
    assert section.keys[1].changes == {"after": ("+5.0 points", True)}
    assert section.html.count('scope="rowgroup"') == 2


@pytest.mark.parametrize(
    "key",
    ["inputs", "seed", "interval", "severities", "clean", "rows", "mean_corruption", "mean_style", "seen", "unseen"],
)
def test_any_key_may_be_missing(key):
    whole = finding()
    section = draw({"network": replace(whole, data={k: v for k, v in whole.data.items() if k != key})})
    expected = 4 if key in ("clean", "mean_corruption", "mean_style", "seen", "unseen") else 5
    assert len(section.keys) == expected
    none = replace(
        whole, data={**whole.data, "seen": None, "unseen": None, "mean_corruption": None, "mean_style": None}
    )
    assert len(draw({"network": none}).keys) == 1


def test_names_are_escaped_and_an_empty_finding_is_drawn():
    strange = finding()
    rows = [{**strange.data["rows"][0], "label": "<b>"}]
    assert "&lt;b&gt;" in draw({"network": replace(strange, data={**strange.data, "rows": rows})}).html
    assert draw({"network": replace(strange, data={})}).keys == ()
