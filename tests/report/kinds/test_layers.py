import re
from dataclasses import replace

import pytest

from buttress.report.kinds import draw

OPTIONAL = [
    *("measure", "std", "quantiles", "excluded", "mu", "sigma", "eta", "mvl", "suggested_eta", "gain"),
    *("tolerance", "margin", "crossed_by_every_path", "rank_correlation", "inputs", "centred", "unpaired"),
    "tolerance_inputs",
]


@pytest.fixture
def finding(one):
    return one["network"][1]


def changed(finding, **data):
    return replace(finding, data={**finding.data, **data})


def rows(html):
    """Cells of a table's rows, as texts without tags, by layer."""
    body = re.search(r"<tbody>(.*?)</tbody>", html, re.DOTALL)[1]
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>") if "<t" in row]
    texts = [[re.sub(r"<.*?>", "", cell) for cell in row] for row in cells]
    return {row[0].removesuffix(" MVL"): row[1:] for row in texts}


def test_a_line_per_perturbation_with_the_vulnerable_layers_marked(finding, drawn):
    figure, second = drawn(draw({"network": finding}).html)
    assert [t.name for t in figure.data] == finding.data["perturbations"]
    assert [list(t.y) for t in figure.data] == finding.data["mean"]
    assert [list(t.y) for t in second.data] == finding.data["centred"]["mean"]
    assert list(figure.data[0].x) == finding.data["layers"] == list(figure.layout.xaxis.categoryarray)
    marked = [
        x for x, symbol in zip(figure.data[0].x, figure.data[0].marker.symbol, strict=True) if symbol == "diamond"
    ]
    assert marked == finding.data["mvl"]["pgd"]
    assert second.layout.yaxis.title.text == "centred relative error"
    assert not second.layout.shapes


def test_the_threshold_is_mu_plus_eta_sigma(finding, drawn):
    figure = drawn(draw({"network": finding}).html)[0]
    (line,) = figure.layout.shapes
    assert line.y0 == line.y1 == pytest.approx(finding.data["mu"]["pgd"] + 0.5 * finding.data["sigma"]["pgd"])
    assert line.name == "threshold, μ + 0.5 σ"
    assert line.showlegend


def test_hover_tells_spread_and_quantiles(finding, drawn):
    figure = drawn(draw({"network": finding}).html)[0]
    assert figure.data[0].hovertext[2].split("<br>") == [
        "<b>layer1.0.relu</b>",
        "pgd",
        "mean 0.810, sd 0.162",
        "10% quantile 0.608",
        "median 0.810",
        "90% quantile 1.01",
        "<b>among the most displaced</b>",
    ]
    assert "3 inputs left out" in figure.data[1].hovertext[1]


def test_the_table(finding):
    table = rows(draw({"network": finding}).html)
    assert list(table) == finding.data["layers"]
    assert table["conv1"] == ["0.420 ± 0.084", "0.357", "0.168", "0.126", "–", "0.350", "0.830", "yes"]
    assert table["layer1.0.relu"][-2:] == ["0.620", "yes"]
    assert table["linear"][-3:] == ["–", "–", "yes"]


def test_two_networks_are_one_figure(two, drawn):
    pair = {name: findings[1] for name, findings in two.items()}
    section = draw(pair)
    figure = drawn(section.html)[0]
    assert [t.name for t in figure.data][::4] == ["baseline · pgd", "hardened · pgd"]
    assert len(figure.layout.shapes) == 2
    assert [t.visible for t in figure.data] == [True, True, "legendonly", "legendonly"] * 2
    (key,) = section.keys
    assert key.values == {"baseline": "layer1.0.relu, layer1.1.relu", "hardened": "layer1.0.relu"}


def test_networks_with_other_layers_share_an_axis(finding, drawn):
    other = changed(finding, layers=[*finding.data["layers"][:-1], "head"])
    figure = drawn(draw({"a": finding, "b": other}).html)[0]
    assert list(figure.layout.xaxis.categoryarray) == [*finding.data["layers"], "head"]


def test_a_centred_profile_has_the_published_one_beside_it(finding, drawn):
    swapped = changed(finding, measure="centred", centred=None, relative_error=finding.data["centred"])
    titles = [f.layout.yaxis.title.text for f in drawn(draw({"network": swapped}).html)]
    assert titles == ["centred relative error", "relative error"]


@pytest.mark.parametrize("key", OPTIONAL)
@pytest.mark.parametrize("null", [True, False])
def test_any_key_may_be_missing(finding, key, null, drawn):
    data = {k: v for k, v in finding.data.items() if k != key} | ({key: None} if null else {})
    html = draw({"network": replace(finding, data=data)}).html
    assert len(drawn(html)) == (1 if key == "centred" else 2)
    assert list(rows(html)) == finding.data["layers"]


def test_the_bare_minimum_and_values_that_are_unknown(finding, drawn):
    data = {"layers": ["a", "b"], "perturbations": ["pgd"], "mean": [[0.5, None]]}
    section = draw({"network": replace(finding, data=data)})
    assert list(drawn(section.html)[0].data[0].y) == [0.5, None]
    assert rows(section.html) == {"a": ["0.500"], "b": ["–"]}
    assert section.keys == ()
    assert "Gain" not in section.html


@pytest.mark.parametrize("data", [{}, {"layers": [], "perturbations": [], "mean": []}])
def test_an_empty_finding_is_drawn(finding, data):
    assert draw({"network": replace(finding, data=data)}).html == ""


def test_layers_without_perturbations(finding):
    data = {"layers": ["a"], "perturbations": [], "mean": []}
    assert rows(draw({"network": replace(finding, data=data)}).html) == {"a": []}


PATCHING = {
    "doses": [0.5, 1.0],
    "curve": [[0.25, 1.0]] * 6 + [None],
    "restored": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, None],
    "recovery": [0.6, 0.6, 0.6, 0.6, 0.6, 0.6, None],
    "half_dose": [0.7, 0.7, 0.7, 0.7, 0.7, 0.7, None],
    "few": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, None],
    "paths": [
        {"from": "conv1", "to": "relu#1", "restored": 0.25},
        {"from": "fc.relu", "to": None, "restored": 0.5},
        {"from": "conv1", "to": "fc.relu", "restored": 0.0},
    ],
    "paths_left_out": 2,
    "left_out": {"linear": "does not depend on the input"},
}
RANKS = {
    "margin": {"rank": [1, 2, 3, 4, 5, 6, None], "low": [1, 2, 2, 4, 5, 6, None], "high": [1, 2, 4, 4, 5, 6, None]},
    "recovery": {"rank": [2, 1, 3, 4, 5, 6, None], "low": [1, 1, 2, 4, 5, 6, None], "high": [2, 2, 4, 4, 5, 6, None]},
    "restored": {"rank": [1, 1, 1, 5, 6, 1, None], "low": [1, 1, 1, 5, 5, 1, None], "high": [4, 4, 4, 6, 6, 4, None]},
}


@pytest.fixture
def patched(finding):
    return changed(finding, patching=PATCHING, patching_inputs=48, ranks={"method": "by resampling", "by": RANKS})


def test_shares_of_a_part_of_the_beaten_inputs_say_of_how_many(patched):
    called = [48, 48, 12, 48, 48, 48, None]
    paths = [{"from": "conv1", "to": "relu#1", "restored": 0.25, "inputs": 12}]
    data = patched.data | {"patching": PATCHING | {"called": called, "paths": paths}}
    html = draw({"network": replace(patched, data=data)}).html
    assert f"Called by a part of them, and told of these alone: {data['layers'][2]} (12)." in html
    assert "conv1 to relu#1 (25.0% of 12);" in html


def test_patching_has_columns_a_figure_and_notes(patched, drawn):
    html = draw({"network": patched}).html
    table = rows(html)
    assert table["relu#1"][-5:] == ["90.0%", "60.0%", "0.700", "20.0%", "yes"]
    assert table["linear"][-5:-1] == ["–"] * 4
    figure = drawn(html)[2]
    assert [t.name for t in figure.data] == patched.data["layers"][:-1]
    assert (list(figure.data[0].x), list(figure.data[0].y)) == ([0, 0.5, 1], [0, 0.25, 1])
    assert "Patching: 48 beaten inputs." in html
    assert "fc.relu to the output (50.0%), conv1 to relu#1 (25.0%); 2 weaker ones were not patched." in html
    assert "Not patched: linear, which does not depend on the input." in html


def test_places_come_with_their_intervals(patched):
    html = draw({"network": patched}).html
    second = html[html.index("Place by margin") :]
    assert list(rows(second).values()) == [
        ["1", "2 (1–2)", "–"],
        ["2", "1 (1–2)", "–"],
        ["3 (2–4)", "3 (2–4)", "–"],
        ["4", "4", "5 (5–6)"],
        ["5", "5", "6 (5–6)"],
        ["6", "6", "–"],
        ["–", "–", "–"],
    ]


def test_the_only_path_from_a_layer_that_every_path_crosses_is_not_said_to_restore_most(patched):
    """It restores all, as in any chain; but one of two is, and one of perhaps more is, too."""
    path = {"from": "conv1", "to": "relu#1", "restored": 1.0}
    lone = {**PATCHING, "paths": [path], "paths_left_out": 0}
    assert "Direct paths" not in draw({"network": changed(patched, patching=lone)}).html
    for more in ({"paths": [path, {**path, "to": None}]}, {"paths_left_out": 1}):
        html = draw({"network": changed(patched, patching={**lone, **more})}).html
        assert "conv1 to relu#1 (100.0%)" in html


def test_what_restores_all_since_every_path_crosses_it_has_no_place(patched):
    html = draw({"network": changed(patched, crossed_by_every_path=[True] * 7)}).html
    assert "Place by recovery" in html
    assert "Place by restored" not in html


def test_the_layers_that_come_first_by_margin_and_by_patching_are_the_first_cards(patched):
    keys = draw({"network": patched}).keys
    assert {key.label: key.values["network"] for key in keys} == {
        "Smallest margin": "conv1",
        "Patching needs least": "relu#1, conv1 (not told apart)",
        "Most displaced layers (published MVL)": "layer1.0.relu, layer1.1.relu",
    }
    alike = {"rank": [1, 2, None, *[None] * 4], "low": [1, 1, *[None] * 5], "high": [2, 2, *[None] * 5]}
    one = {name: [1, *[None] * 6] for name in alike}
    none = {name: [None] * 7 for name in alike}
    for places, text in ((alike, "no layer stands out"), (one, "conv1")):
        margin, *_ = draw({"network": changed(patched, ranks={"by": {"margin": places}})}).keys
        assert margin.values == {"network": text}
    assert len(draw({"network": changed(patched, ranks={"by": {"margin": none}})}).keys) == 1


def test_without_beaten_inputs_the_page_says_so(finding):
    html = draw({"network": changed(finding, patching_inputs=0)}).html
    assert "No input is beaten under pgd: there is nothing to put right by patching." in html
    assert "Half dose" not in html


def test_patching_of_one_network_beside_one_without(patched, finding, drawn):
    figure = drawn(draw({"a": patched, "b": finding}).html)[2]
    assert figure.data[0].name == "a · conv1"
    assert len(figure.data) == 6


@pytest.mark.parametrize("which", ["finding", "patched"])
def test_every_column_shown_is_explained(which, request):
    html = draw({"network": request.getfixturevalue(which)}).html
    heads = re.findall(r'<th scope="col">(.*?)</th>', html)
    assert {h.partition(",")[0] for h in heads} - {"Layer"} == set(re.findall(r"<dt>(.*?)</dt>", html))
