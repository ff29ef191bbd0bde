import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


def stated(value, **more):
    return {"sigma": {"mean": value}, "converged": 1.0, **{name: {"mean": v} for name, v in more.items()}}


@pytest.fixture
def finding():
    grown = {"pgd": {"block": 1.75, "start": 3.5, "relative": 0.25, "alignment": 0.125}}
    branch = {"clean": stated(0.5, residual=1.25, log_norm=-0.375), "adversarial": stated(0.625)}
    first = {"name": "blocks.<0>", "kind": "Block", "clean": stated(2.5), "adversarial": stated(2.75)}
    second = {"name": "head", "kind": "Head", "clean": stated(0.75), "adversarial": stated(0.875), "cm": None}
    blocks = [
        {**first, "branches": {"mixer": branch}, "growth": grown, "cm": 0.4375, "gain": None},
        {**second, "branches": {}, "growth": {}},
    ]
    data = {
        "inputs": 32,
        "perturbations": ["pgd"],
        "chained": True,
        "blocks": blocks,
        "places": {"top": "blocks.<0>", "largest": 2.5},
        "bounds": {"product": 12.25, "exponential": 55.5, "log_norm": 8.5, "measured": {"pgd": 3.5}, "held": 1.0},
        "correlation": {"bound_growth": 0.5, "bound_beaten": None},
    }
    return Finding("lipschitz", "Growth of small changes", "A verdict.", "info", data)


def test_a_row_per_block_and_branch(finding):
    section = draw({"network": finding})
    html = section.html
    assert "blocks.&lt;0&gt;" in html
    assert "blocks.<0>" not in html
    for text in ("2.50", "2.75", "0.500", "1.25", "−0.375", "1.75", "0.125", "0.438", "12.2", "pgd 3.50"):
        assert f"<td>{text}</td>" in html
    assert html.index("blocks.&lt;0&gt;") < html.index("↳ mixer") < html.index('scope="row">head')
    assert html.count('class="vulnerable"') == 1
    assert "Rank correlation of product and growth over the inputs: 0.50." in html
    assert "at most the product on 100.0% of them" in html
    assert "Gain" not in html.partition("<dl")[0]  # a column of nothing
    assert section.keys[0].values == {"network": "2.50 (blocks.<0>)"}


def test_what_must_not_be_overlooked_is_told(finding):
    blocks = [{**finding.data["blocks"][0], "clean": {**stated(2.5), "converged": 0.75}}]
    data = {**finding.data, "chained": False, "blocks": blocks}
    html = draw({"network": Finding("lipschitz", "T", "V.", "info", data)}).html
    assert "which the products leave out: they bound nothing" in html
    assert "of the worst block 25.0%" in html


def test_a_table_per_network_and_one_of_bounds(finding):
    html = draw({"before": finding, "after": finding}).html
    assert [html.count(text) for text in ("<h3>before</h3>", "<h3>after</h3>", "<table>")] == [1, 1, 3]


def test_an_empty_finding_is_drawn():
    section = draw({"network": Finding("lipschitz", "T", "V.", "info", {})})
    assert section.html == ""
    assert section.keys == ()
