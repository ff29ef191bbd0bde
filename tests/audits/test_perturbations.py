"""Cosines and gaps on networks where both are known."""

import pytest
import torch
from torch import nn

from buttress import audits
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.finding import read, to_json
from buttress.audits.perturbations import Perturbations
from buttress.errors import UserError
from buttress.threat import Threat

THREAT = Threat(eps=0.3, box=None)


def test_on_a_linear_network_both_are_the_same(line):
    """The sign of the gradient is the same everywhere: cosine 1, no gap."""
    model, x, y, w = line
    finding = audits.run(model, [(x, y)], [Perturbations(attack=PGD(threat=THREAT, steps=20))])[0]
    assert finding.severity == "info"
    assert finding.data["cosine"]["mean"] == pytest.approx(1, abs=1e-6)
    assert (finding.data["cosine"]["undefined"], finding.data["gap"]["difference"]) == (0, 0)
    margin = (2 * y - 1) * (x @ w)
    for row, budget in ((finding.data["clean"], 0.0), *((row, 0.3) for row in finding.data["attacks"])):
        assert row["accuracy"] == pytest.approx((margin > budget * w.abs().sum()).double().mean().item())
    counts = finding.data["histogram"]["counts"]
    assert (len(counts), sum(counts), counts[-1]) == (20, 200, 200)
    assert [row["label"] for row in finding.data["attacks"]] == ["FGSM", "PGD-20"]


class Hump(nn.Module):
    """Right at 0 and one budget away, wrong between: one whole step jumps over what many small ones find."""

    def forward(self, x):
        away = x.sum(1)
        lead = 1 - 1.2 * torch.sin(away.clamp(0, 1) * torch.pi) + 0 * away
        return torch.stack([lead, -lead], 1) + 1e-3 * torch.stack([-away, away], 1)


def test_a_step_that_jumps_over_what_many_find(tmp_path):
    attack = PGD(threat=Threat(eps=1.0, box=None), steps=20, step_size=0.05, start="zero")
    data = [(torch.zeros(30, 1), torch.zeros(30).long())]
    finding = audits.run(Hump(), data, [Perturbations(attack=attack)])[0]
    assert [row["accuracy"] for row in finding.data["attacks"]] == [1.0, 0.0]
    assert finding.data["gap"]["difference"] == 1
    assert finding.severity == "warning"
    assert finding.verdict.endswith("Robust accuracy under FGSM means little here.")
    (tmp_path / "findings.json").write_text(to_json({"net": [finding]}, {}))
    assert read(tmp_path / "findings.json")[0]["net"][0] == finding


def test_figures_are_those_of_the_attacks(pictures):
    model, split = pictures
    threat = Threat(norm="l2", eps=0.8)
    attack = PGD(threat=threat, steps=5)
    finding = audits.run(model, split, [Perturbations(attack=attack)])[0]
    one, many = (a(model, split.x, split.y, ids=split.ids) for a in (FGSM(threat=threat), attack))
    moved = [(found.x_adv - split.x).flatten(1) for found in (one, many)]
    expected = nn.functional.cosine_similarity(*moved).mean()
    assert finding.data["cosine"]["mean"] == pytest.approx(float(expected), abs=1e-5)
    assert finding.data["cosine"]["low"] < float(expected) < finding.data["cosine"]["high"]
    assert [row["accuracy"] for row in finding.data["attacks"]] == [
        pytest.approx(float((~found.success).double().mean())) for found in (one, many)
    ]


def test_nothing_moved_has_no_direction(line):
    model, x, y, _ = line
    finding = audits.run(model, [(x, y)], [Perturbations(attack=PGD(threat=Threat(eps=0.0, box=None), steps=1))])[0]
    assert finding.data["cosine"] == {"mean": None, "low": None, "high": None, "undefined": 200}
    assert "undefined" in finding.verdict


def test_a_gap_that_is_none_is_refused():
    with pytest.raises(UserError, match="gap must be a number in"):
        Perturbations(gap=1.5)
