from dataclasses import replace

import pytest

from buttress.report.kinds import draw
from buttress.report.kinds.robustness import worst


@pytest.fixture
def pair(two):
    return {name: found[0] for name, found in two.items()}


def changed(finding, **data):
    return replace(finding, data={**finding.data, **data})


def test_curves_are_those_of_the_data(pair, drawn):
    (figure,) = drawn(draw(pair).html)
    lines = {trace.name: trace for trace in figure.data if trace.name}
    assert list(lines) == [
        f"{network} · {attack}"
        for network in ("baseline", "hardened")
        for attack in ("all attacks together", "FGSM", "PGD-20")
    ]
    for network, finding in pair.items():
        for attack in finding.data["attacks"]:
            line = lines[f"{network} · {attack['label']}"]
            assert list(line.x) == [p["eps"] for p in attack["curve"]]
            assert list(line.y) == [p["accuracy"] for p in attack["curve"]]
            assert line.hovertext[3].startswith(f"<b>{line.name}</b><br>ε = 8/255<br>accuracy ")
    same = [lines[f"{network} · FGSM"] for network in pair]
    assert same[0].line.color != same[1].line.color
    assert same[0].line.dash == same[1].line.dash != lines["baseline · PGD-20"].line.dash
    assert list(figure.layout.xaxis.ticktext) == ["0", "2/255", "4/255", "8/255", "12/255", "16/255"]


def test_a_band_spans_the_interval(pair, drawn):
    (figure,) = drawn(draw(pair).html)
    curve = pair["baseline"].data["attacks"][0]["curve"]
    band = next(t for t in figure.data if t.fill == "toself" and t.legendgroup == "baseline · FGSM")
    assert list(band.y) == [p["high"] for p in curve] + [p["low"] for p in reversed(curve)]
    assert list(band.x) == [p["eps"] for p in curve] + [p["eps"] for p in reversed(curve)]


def test_a_curve_without_intervals_has_no_band(one, drawn):
    finding = one["network"][0]
    bare = [{"label": "PGD", "curve": [{"eps": e, "accuracy": 0.5} for e in (0.0, 0.1)]}]
    section = draw({"network": changed(finding, attacks=bare, worst=None, main_eps=0.1, noises=[])})
    (figure,) = drawn(section.html)
    assert [trace.name for trace in figure.data] == ["PGD"]
    assert [dict(key.values) for key in section.keys] == [{"network": "50.0%"}] * 2


def test_key_figures(pair):
    clean, robust = draw(pair).keys
    at_main = {name: finding.data["worst"][3]["accuracy"] for name, finding in pair.items()}
    assert clean.values == {"baseline": "91.2%", "hardened": "87.4%"}
    assert clean.changes == {"hardened": ("−3.8 points", False)}
    assert robust.values == {name: f"{share:.1%}" for name, share in at_main.items()}
    assert robust.changes["hardened"][1] is True
    assert robust.note == "under FGSM and PGD-20, ε = 8/255"


def test_an_equal_figure_is_neither_better_nor_worse(pair):
    clean, _ = draw({"a": pair["baseline"], "b": pair["baseline"]}).keys
    assert clean.changes == {"b": ("±0.0 points", None)}


def test_other_budgets_are_not_compared(pair):
    other = {**pair, "hardened": changed(pair["hardened"], main_eps=4 / 255)}
    _, robust = draw(other).keys
    assert robust.changes == {}
    assert "each at its own main ε" in robust.note


def test_without_worst_the_lowest_attack_counts(pair):
    data = {**pair["baseline"].data, "worst": []}
    lowest = [min(a["curve"][i]["accuracy"] for a in data["attacks"]) for i in range(len(data["attacks"][0]["curve"]))]
    assert [point["accuracy"] for point in worst(data)] == lowest


def test_each_norm_has_a_figure(one, drawn):
    finding = one["network"][0]
    attacks = [{**a, "norm": norm} for a, norm in zip(finding.data["attacks"], ("linf", "l2"), strict=True)]
    figures = drawn(draw({"network": changed(finding, attacks=attacks)}).html)
    assert [figure.layout.xaxis.title.text for figure in figures] == ["budget ε (linf)", "budget ε (l2)"]
    assert [[t.name for t in figure.data if t.name] for figure in figures] == [["FGSM"], ["PGD-20"]]


def test_the_table_has_scores_and_costs(one):
    html = draw({"network": one["network"][0]}).html
    row = html[html.index("PGD-20 (linf)") :].split("</tr>")[0]
    for cell in ("91.2%", "23.9%", "20.9–26.9%", "312.4", "21.0", "20.0", "3.10 ms"):
        assert f">{cell}<" in row
    assert "gaussian" in html
    assert "87.0%" in html


@pytest.mark.parametrize("data", [{}, {"attacks": []}, {"attacks": [{"label": "PGD", "curve": []}], "main_eps": 0.1}])
def test_an_empty_finding_is_drawn(one, data, drawn):
    section = draw({"network": replace(one["network"][0], data=data)})
    assert section.keys == ()
    assert len(drawn(section.html)) == len(data.get("attacks", []))


@pytest.mark.parametrize("key", ["inputs", "seed", "precision", "interval", "main_eps", "worst", "noises"])
def test_any_key_may_be_missing(pair, key, drawn):
    lacking = {name: replace(f, data={k: v for k, v in f.data.items() if k != key}) for name, f in pair.items()}
    section = draw(lacking)
    assert len(drawn(section.html)) == 1
    assert len(section.keys) == (1 if key == "main_eps" else 2)
