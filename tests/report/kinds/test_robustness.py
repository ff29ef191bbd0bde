import math
from dataclasses import replace

import pytest

from buttress.report.kinds import draw
from buttress.report.kinds.robustness import worst


@pytest.fixture
def pair(two):
    return {name: findings[0] for name, findings in two.items()}


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


def distances(**change):
    points = [{"eps": e, "accuracy": a} for e, a in ((0.0, 0.9), (0.01, 0.7), (0.02, 0.5), (0.5, 0.0))]
    content = {"found": 880, "right": 900, "median": 0.0213, "low": 0.02, "high": 0.0224, "curve": points}
    return {**content, **change}


def with_distances(finding, **change):
    """The second attack of a finding as a minimum-norm one, of two parts."""
    parts = [{"name": "apgd-ce", "entered": 912, "beaten": 400, "forwards": 9120, "backwards": 8208}]
    parts.append({"name": "fab", "entered": 512, "beaten": 12, "forwards": 256, "backwards": 0})
    first, second = finding.data["attacks"]
    second = {**second, "distances": distances(**change), "stages": parts, "total": {"seconds": 0.25}}
    pair = {"first": "FGSM", "second": "PGD-20", "difference": -0.034, "low": -0.05, "high": -0.018}
    return changed(
        finding,
        attacks=[first, second],
        paired=[{**pair, "gained": 3, "lost": 37, "p": 2e-8}],
        reuse=True,
        distances=distances(**change),
    )


def test_a_minimum_norm_attack_has_a_curve_of_its_own_and_a_key_figure(one, drawn):
    section = draw({"network": with_distances(one["network"][0])})
    (figure,) = drawn(section.html)
    line = next(trace for trace in figure.data if trace.name == "PGD-20")
    assert list(line.x) == [0.0, 0.01, 0.02, 0.5]
    assert list(line.y) == [0.9, 0.7, 0.5, 0.0]
    key = section.keys[-1]
    assert (key.label, dict(key.values)) == ("Median distance (linf)", {"network": "0.0213"})
    assert key.note == "to the nearest adversarial example, at most; by PGD-20"


def test_distances_pairs_and_parts_are_told_in_tables(one):
    html = draw({"network": with_distances(one["network"][0])}).html
    rows = [row.split("</tr>")[0] for row in html.split("<tr>")]
    (median,) = [row for row in rows if "880 of 900" in row]
    assert [f">{cell}<" in median for cell in ("PGD-20", "0.0213", "0.0200 to 0.0224")] == [True] * 3
    (pair,) = [row for row in rows if "PGD-20 against FGSM" in row]
    assert all(f">{cell}<" in pair for cell in ("−3.4 points", "−5.0 points to −1.8 points", "3 / 37"))
    (fab,) = [row for row in rows if "PGD-20: fab" in row]
    assert all(f">{cell}<" in fab for cell in ("512", "12", "0.500", "0"))
    assert ">250 ms<" in html
    assert "inputs with an adversarial example at a smaller budget are not attacked again" in html


@pytest.mark.parametrize("infinite", [math.inf, "inf"])
def test_a_median_that_was_never_reached_is_infinite(one, infinite):
    section = draw({"network": with_distances(one["network"][0], median=infinite, high=infinite)})
    assert dict(section.keys[-1].values) == {"network": "∞"}
    assert ">0.0200 to ∞<" in section.html


def test_medians_of_two_networks_stand_side_by_side(pair):
    other = with_distances(pair["hardened"], median=0.05)
    key = draw({"baseline": with_distances(pair["baseline"]), "hardened": other}).keys[-1]
    assert dict(key.values) == {"baseline": "0.0213", "hardened": "0.0500"}
    assert len(draw({"baseline": pair["baseline"], "hardened": other}).keys[-1].values) == 1


def test_a_finding_of_before_has_none_of_these_tables(one):
    html = draw({"network": one["network"][0]}).html
    assert html.count("<table>") == 1
    assert "Median distance" not in html


def test_nobody_right_has_no_median(one):
    finding = with_distances(one["network"][0])
    second = {**finding.data["attacks"][1], "distances": {"found": 0, "right": 0, "curve": []}}
    none = changed(finding, attacks=[finding.data["attacks"][0], second], distances=second["distances"])
    section = draw({"network": none})
    assert len(section.keys) == 2
    assert ">0 of 0<" in section.html


def test_a_curve_of_many_points_is_a_line_without_marks(one, drawn):
    fine = [{"eps": k / 100, "accuracy": 1 - k / 50} for k in range(51)]
    (figure,) = drawn(draw({"network": with_distances(one["network"][0], curve=fine)}).html)
    assert {trace.name: trace.mode for trace in figure.data if trace.name in ("FGSM", "PGD-20")} == {
        "FGSM": "lines+markers",
        "PGD-20": "lines",
    }
