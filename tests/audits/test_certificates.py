"""The audit of certificates: between what is proven and what an attack achieves."""

from dataclasses import dataclass

import pytest
import torch
from tests.certificates import zoo
from torch import nn

from buttress import audits
from buttress.attacks import PGD
from buttress.audits import Certificates, Robustness
from buttress.certificates import CROWN, IBP, Answer, Verifier
from buttress.errors import UserError
from buttress.threat import Threat


@dataclass(frozen=True)
class Wrong(Verifier):
    """Certifies everything."""

    def bound(self, problem):
        """Margins of 1 without a reason."""
        return Answer(torch.ones_like(problem.logits[:, 1:].T) + problem.logits.abs().amax())


def linear():
    """Two classes in two dimensions, x1 against x2: an input is robust up to half of the difference in linf."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    x = torch.stack([torch.linspace(0.5, 1.0, 41), torch.full((41,), 0.5)], 1)
    return model, x, torch.zeros(41, dtype=torch.long)


def ask(audit, model, x, y, **settings):
    """The finding of one audit."""
    return audits.run(model, [(x, y)], [audit], **settings)[0]


def test_of_a_linear_network_both_curves_are_the_truth():
    model, x, y = linear()
    threat = Threat(eps=0.2, box=None)
    finding = ask(Certificates(attack=PGD(threat=threat), shares=(0.26, 0.51, 1.01)), model, x, y)
    for row in finding.data["curve"]:
        expected = float(((x[:, 0] - x[:, 1]) > 2 * row["eps"]).float().mean())
        assert row["certified"]["accuracy"] == pytest.approx(expected)
        assert row["attacked"]["accuracy"] == pytest.approx(expected)
    assert finding.data["crossings"] == []
    assert finding.severity == "info"
    certified = finding.data["curve"][-1]["certified"]["accuracy"]
    assert finding.verdict.endswith(f"robust accuracy is {certified:.1%}.")


def test_the_truth_is_between():
    torch.manual_seed(0)
    model, x = zoo.network("relu"), torch.rand(40, *zoo.SHAPE)
    y = model(x).argmax(1)
    attack = PGD(threat=Threat(eps=0.04), steps=10)
    finding = ask(Certificates(verifiers=[IBP(), CROWN()], attack=attack), model, x, y)
    rows = finding.data["curve"]
    assert [row["eps"] for row in rows] == pytest.approx([0.005, 0.01, 0.02, 0.04])
    for row in rows:
        assert row["certified"]["accuracy"] <= row["attacked"]["accuracy"]
        assert sum(row["by"].values()) == round(40 * row["certified"]["accuracy"])
    assert any("crown" in row["by"] and "ibp" in row["by"] for row in rows)
    assert "is between" in finding.verdict


def test_a_wrong_certificate_is_a_bug_by_name():
    model, x, y = linear()
    attack = PGD(threat=Threat(eps=0.2, box=None))
    finding = ask(Certificates(verifiers=[Wrong()], attack=attack, shares=(1.0,)), model, x, y)
    assert finding.severity == "bad"
    assert "Wrong certifies" in finding.verdict
    assert "PGD-10" in finding.verdict
    assert "report the bug" in finding.verdict
    broken = (x[:, 0] - x[:, 1]) < 0.4
    assert len(finding.data["crossings"]) == int((broken & (x[:, 0] > x[:, 1])).sum())


def test_a_network_that_cannot_be_bounded_is_refused_by_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    with pytest.raises(UserError, match="cannot bound native_layer_norm in layer 1"):
        ask(Certificates(), model, torch.rand(4, 2), torch.zeros(4, dtype=torch.long))


def test_the_page_shows_curves_rows_and_crossings():
    from buttress.report.kinds import draw

    model, x, y = linear()
    attack = PGD(threat=Threat(eps=0.2, box=None))
    settings = {"attack": attack, "shares": (0.5, 1.0)}
    good, bad = (ask(Certificates(verifiers=[v], **settings), model, x, y) for v in (CROWN(), Wrong()))
    section = draw({"good": good, "bad": bad})
    assert "bad: inputs that are certified, and yet attacked successfully: input" in section.html
    assert "good: inputs that are certified" not in section.html
    assert section.keys[0].label == "Certified accuracy"
    assert section.html.count('<tr><th scope="row">') == 4


@pytest.mark.parametrize("name", ["relu", "residual"])
def test_robustness_with_certificates_has_the_same_figures(name):
    torch.manual_seed(0)
    model, x = zoo.network(name), torch.rand(30, *zoo.SHAPE)
    y = model(x).argmax(1)
    attack = PGD(threat=Threat(eps=0.02), steps=10)
    plain, spared = (
        ask(Robustness(attacks=(attack,), verifier=verifier), model, x, y).data for verifier in (None, CROWN())
    )
    assert spared["worst"] == plain["worst"]
    assert spared["stands"] == plain["stands"]
    (row,), (before,) = spared["attacks"], plain["attacks"]
    assert row["certified"] > 0
    assert row["spared"]["backwards"] == row["certified"] * attack.most_passes(4).backwards
    assert row["backwards"] < before["backwards"]
    assert "certified" not in before
