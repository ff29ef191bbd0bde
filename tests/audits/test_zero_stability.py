"""Roots of networks whose coefficients are known, and growth against states that are computed here."""

import json
from dataclasses import dataclass

import pytest
import torch

from buttress import audits, models
from buttress.attacks import Attack, Perturbation
from buttress.audits.base.finding import to_json
from buttress.audits.zero_stability import ZeroStability
from buttress.errors import UserError
from buttress.models.blocks.multistep import amplification
from buttress.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Lighter(Perturbation):
    """Every value raised by the same."""

    by: float = 0.05

    def perturb(self, oracle, x, y, random):
        return x + self.by


@dataclass(frozen=True, kw_only=True)
class Darker(Attack):
    """Every value lowered by the budget."""

    threat: Threat = Threat(eps=0.1, box=None)

    def perturb(self, oracle, x, y, random):
        return x - self.threat.eps


QUESTION = ZeroStability(attack=Darker(), noise=Lighter())


def network(discretisation, seed=0, **options):
    settings = {"channels": 1, "classes": 4, "width": 2, "blocks": 2, **options}
    return models.create("zerosnet", discretisation=discretisation, seed=seed, **settings).eval()


@pytest.fixture(scope="module")
def data():
    x = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return [(x, torch.arange(9) % 4)]


def test_roots_of_each_block(data):
    finding = QUESTION(network("opt"), data)
    assert (finding.kind, finding.severity) == ("zero-stability", "good")
    rows = finding.data["blocks"]
    assert [row["block"] for row in rows] == [f"blocks.{i}" for i in range(6)]
    assert [row["start"] for row in rows] == [True, True, False, False, False, False]
    for row in rows[2:]:
        assert row["a"] == pytest.approx([1 / 3, 5 / 9, 1 / 9])
        assert (row["b0"], row["k"]) == (pytest.approx(16 / 9), pytest.approx(-9 / 5))
        assert (row["order"], row["stable"], row["trained"]) == (2, True, False)
        assert row["roots"] == [pytest.approx(root, abs=1e-7) for root in ([1, 0], [-1 / 3, 0], [-1 / 3, 0])]
        assert row["modulus"] == pytest.approx(1 / 3)
    assert (finding.data["modulus"], finding.data["unstable"]) == (pytest.approx(1 / 3), 0)
    assert "Of 4 multistep blocks all are zero-stable; the largest parasitic modulus is 0.333; " in finding.verdict
    assert finding.data["amplification"] == pytest.approx(amplification([row["a"] for row in rows[2:]]))
    assert "NaN" not in to_json({"network": [finding]}, {})


def test_the_largest_root_decides_and_its_block_is_found():
    model = network("tra")
    ks = {2: 5.0, 3: -0.5, 4: 1.0, 5: -1.8}
    with torch.no_grad():
        for index, k in ks.items():
            model.blocks[index].k.fill_(k)
    finding = QUESTION(model, [(torch.rand(2, 1, 8, 8), torch.zeros(2).long())])
    rows = finding.data["blocks"]
    assert {i: pytest.approx(row["k"]) for i, row in enumerate(rows) if not row["start"]} == ks
    assert [row["stable"] for row in rows] == [True, True, True, False, True, True]
    assert finding.data["modulus"] == pytest.approx(1.8828, abs=1e-4)
    assert (finding.severity, finding.data["unstable"]) == ("warning", 1)
    assert "Of 4 multistep blocks 1 is not zero-stable" in finding.verdict


@pytest.mark.parametrize(
    ("name", "severity", "modulus", "stepping"),
    [
        ("resnet", "good", 0.0, 6),
        ("leapfrog", "info", 1.0, 4),
        ("unstable", "warning", 1.8393, 4),
        ("lm", "good", 0.0, 5),
        (1, "good", 0.7071, 4),
    ],
)
def test_other_discretisations(data, name, severity, modulus, stepping):
    finding = QUESTION(network(name), data)
    assert finding.severity == severity
    assert finding.data["modulus"] == pytest.approx(modulus, abs=5e-5)
    assert finding.data["stepping"] == stepping


@pytest.mark.parametrize("batch_size", [256, 3])
def test_growth_of_states_by_hand(data, batch_size):
    (x, _), model = data[0], network("opt")
    finding = QUESTION(model, data, batch_size=batch_size)

    def states(images):
        known = (model.conv1(images),)
        passed = [known[0]]
        for block in model.blocks:
            known = block(*known)
            passed.append(known[0])
        return passed

    with torch.no_grad():
        clean, lighter, darker = states(x), states(x + 0.05), states(x - 0.1)
    assert len(finding.data["norms"]) == 7
    for index, state in enumerate(clean):
        assert finding.data["norms"][index] == pytest.approx(float(state.flatten(1).norm(dim=1).mean()), rel=1e-4)
        for kind, others in (("noise", lighter), ("attack", darker)):
            by_hand = float((others[index] - state).flatten(1).norm(dim=1).mean())
            assert finding.data[kind]["differences"][index] == pytest.approx(by_hand, rel=1e-3)
    found = finding.data["noise"]
    assert found["growth"] == pytest.approx(found["differences"][6] / found["differences"][0])
    assert found["per_block"] ** 6 == pytest.approx(found["growth"])


def test_without_f_a_difference_follows_the_coefficients():
    model = network("unstable", blocks=3)
    for block in model.blocks:
        torch.nn.init.zeros_(block.residual[-1].weight)
    finding = QUESTION(model, [(torch.rand(2, 1, 8, 8), torch.zeros(2).long())])
    norms, differences = finding.data["norms"], finding.data["noise"]["differences"]
    # Of equal states the third block, the only multistep one before the second stage, makes the sum of three.
    assert [one / norms[0] for one in norms[:4]] == pytest.approx([1, 1, 1, 3], rel=1e-5)
    assert [one / differences[0] for one in differences[:4]] == pytest.approx([1, 1, 1, 3], rel=1e-5)


def test_behind_a_normalisation_and_the_model_comes_back(data):
    model = models.create("zerosnet", channels=1, width=2, blocks=1, seed=0, mean=0.5, std=0.25).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finding = QUESTION(model, data)
    assert [row["block"] for row in finding.data["blocks"]] == [f"model.blocks.{i}" for i in range(3)]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(block._forward_hooks for block in model.model.blocks)


def test_nothing_moved_has_no_growth(data):
    still = ZeroStability(attack=Darker(threat=Threat(eps=0.0)), noise=Lighter(by=0.0))
    finding = still(network("opt"), data)
    assert (finding.data["noise"]["growth"], finding.data["attack"]["per_block"]) == (None, None)
    assert "grow" not in finding.verdict
    assert json.loads(to_json({"network": [finding]}, {}))["networks"]["network"][0]["data"]["noise"]["growth"] is None


def test_blocks_at_the_start_alone_are_nothing_to_judge(data):
    model = network("opt", blocks=1)
    model.blocks = model.blocks[:2]
    model.bn, model.fc = torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 4)
    finding = QUESTION(model.eval(), data)
    assert (finding.severity, finding.data["stepping"], finding.data["amplification"]) == ("info", 0, 1.0)
    assert "there is no multistep method to judge" in finding.verdict


def test_a_network_without_multistep_blocks_is_told_in_one_line(data):
    model = models.create("cnn", width=2)
    with pytest.raises(UserError, match=r"zero-stability needs a network of multistep blocks.*; CNN has none"):
        QUESTION(model, data)


def test_the_audit_is_registered():
    assert "zero-stability" in audits.names()
