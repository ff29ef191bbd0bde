import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def at(radius, accuracy):
    return {"radius": radius, "accuracy": accuracy, "low": 0.5, "high": 0.75}


@pytest.fixture
def data():
    first = {
        "sigma": 0.25,
        "ceiling": 0.615,
        "certified": [at(0.0, 0.8), at(0.25, 0.4), at(0.5, 0.1)],
        "radii": [0.125, 0.3125, 0.5625, 0.25],
        "attacked": [{"eps": 0.25, "accuracy": 0.625}, {"eps": 0.5, "accuracy": 0.375}],
        "contradicted": 1,
        "abstained": 0.0625,
        "noisy_accuracy": 0.6875,
        "mean_radius": 0.1875,
        "seconds": 1.5,
        "attack_seconds": 0.25,
    }
    second = {"sigma": 0.5, "ceiling": 1.23, "certified": [at(0.0, 0.7), at(0.25, 0.45), at(0.5, 0.3)], "radii": []}
    best = [{**at(0.0, 0.8), "sigma": 0.25}, {**at(0.25, 0.45), "sigma": 0.5}, {**at(0.5, 0.3), "sigma": 0.5}]
    facts = {"inputs": 5, "n0": 100, "n": 1000, "alpha": 0.001, "joint": False, "attack": "PGD-10 on the <network>"}
    return {**facts, "sigmas": [first, second], "best": best}


def finding(data):
    return Finding("smoothing", "Randomised smoothing (l2)", "V.", "info", data)


def test_curves_fall_by_one_input_at_each_certified_radius(data, drawn):
    section = draw({"network": finding(data)})
    (plot,) = drawn(section.html)
    certified, attacked, other = plot["data"]
    assert list(certified["x"]) == [0, 0.125, 0.25, 0.3125, 0.5625]
    assert list(certified["y"]) == [0.8, 0.6, 0.4, 0.2, 0.0]
    assert certified["line"]["shape"] == "hv"
    assert list(attacked["y"]) == [0.625, 0.375]
    assert list(other["y"]) == [0.0]
    assert [shape["x0"] for shape in plot["layout"]["shapes"]] == [0.615, 1.23]
    html = section.html
    for text in ("80.0%", "50.0–75.0%", "6.2%", "68.8%", "0.188", "0.615", "1.50 s", "250 ms", "62.5%"):
        assert f"<td>{text}</td>" in html
    assert html.count('class="vulnerable"') == 1  # a certificate that the attack contradicts
    assert "<network>" not in html
    assert "each certificate by itself with probability 0.999" in html
    assert [(key.label, key.values["network"]) for key in section.keys] == [
        ("Certified at l2 radius 0", "80.0%"),
        ("Certified at l2 radius 0.25", "45.0%"),
    ]


def test_networks_are_compared_at_the_radii_that_both_have(data, drawn):
    shorter = {**data, "joint": True, "attack": None, "sigmas": data["sigmas"][1:], "best": data["best"][:1]}
    section = draw({"before": finding(data), "after": finding(shorter)})
    assert [key.label for key in section.keys] == ["Certified at l2 radius 0"]
    assert len(drawn(section.html)[0]["data"]) == 4
    assert "all certificates of a σ together" in section.html
    assert "No attack was run." in section.html
    assert draw({"network": finding({})}).html == ""
