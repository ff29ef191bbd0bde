import pytest
import torch

from buttress import audits
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.surface.audit import Surface
from buttress.report.kinds import draw
from buttress.report.stills.findings import still
from buttress.threat import Threat


@pytest.fixture(scope="module")
def finding():
    """Of a linear network on three features."""
    torch.manual_seed(0)
    model, x = torch.nn.Linear(3, 2).eval(), torch.rand(30, 3)
    y = model(x).argmax(1)
    attack = PGD(threat=Threat(eps=0.1), steps=2)
    return Surface(attack=attack, grid=5, inputs=10).ask(audits.subject(model, [(x, y)], classes=["<a>", "b"]))


def test_planes_by_loss_cuts_and_figures(finding, drawn):
    html = draw({"network": finding}).html
    margin, entropy, cuts = drawn(html)
    names = [trace.name for trace in margin.data]
    assert names[:4] == [None, "where the answer turns wrong", "the budget", "the input"]
    assert [trace.visible for trace in margin.data] == [True] * 4 + [False] * 8
    first = finding.data["items"][0]
    assert [list(row) for row in margin.data[0].z] == first["surfaces"]["margin"]
    assert len(entropy.data) == 9
    (menu,) = margin.layout.updatemenus
    assert [button.label.split(" ")[0] for button in menu.buttons] == ["small", "medium", "large"]
    assert all("&lt;a&gt;" in button.label or button.label.endswith(" b") for button in menu.buttons)
    assert list(cuts.data[0].y) == first["surfaces"]["margin"][2]
    middle = first["surfaces"]["margin"][2][2]
    assert list(cuts.data[2].y) == pytest.approx([middle + rise for rise in first["tangents"]["margin"]])
    assert "Margin: median over inputs" in html
    assert "A random step is steeper, near by" in html


def test_a_panel_for_each_network(finding, drawn):
    html = draw({"one": finding, "two": finding}).html
    assert len(drawn(html)) == 6
    assert "<h3>two</h3>" in html


def test_the_still_picture_has_a_plane_for_each_input(finding):
    text = still({"one": finding, "two": finding}, "surfaces")
    for item in finding.data["items"]:
        assert text.count(f"{item['margin']} margin") == 2
    assert "along the gradient, in budgets (linf ε 0.1)" in text
