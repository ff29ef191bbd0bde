"""Networks whose true robustness is known by hand, and attacks that must find it although gradients mislead."""

import json

import pytest
import torch
from torch import nn

from buttress import audits
from buttress.attacks import PGD
from buttress.audits.adaptive.attack_list import Jitter
from buttress.audits.adaptive.audit import Adaptive
from buttress.audits.adaptive.measurements import ablations_of
from buttress.audits.base.finding import to_json
from buttress.errors import UserError
from buttress.models.wrapping.normalized import Normalized
from buttress.random import Random
from buttress.threat import Threat

EPS = 0.06
THREAT = Threat(eps=EPS)
QUICK = {"steps": 10, "restarts": 2, "jitters": 2, "queries": 20, "decisions": 30, "corners": 3, "corner_inputs": 7}
BLIND = {"jitters": 0, "targets": 0, "queries": 0, "decisions": 0, "corners": 0, "curve": False}


class Masked(nn.Module):
    """A network in sight of values rounded so finely that nothing changes but the gradient, which is 0."""

    def __init__(self, honest, offers=True):
        super().__init__()
        self.honest = honest
        if offers:
            self.attack_variants = lambda: {"unrounded": self.honest}

    def forward(self, x):
        return self.honest(torch.round(x * 1e6) / 1e6)


class Cut(Masked):
    """Without any gradient."""

    def forward(self, x):
        return self.honest(x.detach())


class Parted(nn.Module):
    """The sum of two networks, one of which can be left away."""

    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x):
        return self.one(x) + self.other(x)

    def ablations(self):
        return {"one alone": self.one}


@pytest.fixture
def weight():
    return torch.randn(2, 6, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def case(nets, weight):
    """A linear network, inputs away from the ends of the box, and which of them stand in truth."""
    model = nets.linear(weight, -(weight.sum(1) * 0.5))
    x = 0.2 + 0.6 * torch.rand(24, 6, generator=torch.Generator().manual_seed(1))
    slope = weight[0] - weight[1]
    y = (((x - 0.5) @ slope > 0) == (torch.arange(24) % 6 == 0)).long()  # one in six is wrong
    lead = (x - 0.5) @ slope * (1 - 2 * y)
    return model, [(x, y)], lead > 0, lead > EPS * slope.abs().sum()


def rows(finding):
    return {row["label"]: row for row in finding.data["rows"]}


def share(found):
    return pytest.approx(float(found.double().mean()))


@pytest.mark.parametrize("cascade", [False, True])
def test_an_honest_network(case, cascade):
    model, data, right, stands = case
    finding = Adaptive(threat=THREAT, cascade=cascade, **QUICK)(model, data)
    found = finding.data
    assert 0.1 < found["worst"]["accuracy"] < found["clean"]["accuracy"]
    assert found["clean"]["accuracy"] == share(right)
    assert found["worst"]["accuracy"] == found["reference"]["accuracy"] == share(stands)
    assert finding.severity == "bad"  # fewer are robust than under one answer for all, whatever the attack
    assert (found["missed"]["won"], found["not_run"], found["ablations"]) == (0, [], [])
    labels = ["PGD-20", "PGD-10 x 2", "PGD-10 x 2 (margin)", "APGD-10 (margin, 1 targets)"]
    labels += ["PGD-10 (margin), mean over 2 jitters", "Corners-3", "Square-20", "HopSkipJump-30"]
    assert list(rows(finding)) == labels
    assert rows(finding)["Corners-3"]["inputs"] <= 7
    for label in labels[:4]:
        row = rows(finding)[label]
        assert row["inputs"] == (int(stands.sum()) if cascade and label != "PGD-20" else 24)
        assert row["alone"] == (None if cascade else 0)
    assert rows(finding)["PGD-20"]["beaten"] == int((right & ~stands).sum())
    assert found["curve"][0] == {"eps": 0.0, **found["clean"]}
    assert found["curve"][-1]["accuracy"] == 0
    at = {point["eps"]: point["accuracy"] for point in found["curve"]}
    assert at[EPS] == share(stands)
    assert found["total"]["forwards"] == pytest.approx(sum(row["forwards"] for row in found["rows"]))
    assert "Robust accuracy on 24 inputs at linf eps 0.06 is" in finding.verdict
    json.loads(to_json({"network": [finding]}, {}))


def test_a_masked_gradient_is_seen_through_by_a_variant(case):
    model, data, _, stands = case
    asked = Adaptive(threat=THREAT, **{**QUICK, **BLIND})
    finding = asked(Masked(model), data)
    found = finding.data
    assert found["variants"] == ["unrounded"]
    assert found["worst"]["accuracy"] == share(stands)
    assert found["reference"]["accuracy"] > found["worst"]["accuracy"] + 0.2
    assert finding.severity == "bad"
    best = rows(finding)["PGD-10 x 2 on 'unrounded'"]
    assert best["missed"] == found["missed"]["won"] > 0
    assert best["standing"]["accuracy"] == share(stands)
    assert "of what that misses PGD-10 x 2 on 'unrounded' finds most" in finding.verdict
    # Nobody who does not know of the variant finds that by gradients.
    blind = asked(Masked(model, offers=False), data).data
    assert blind["variants"] == []
    assert blind["worst"]["accuracy"] > found["worst"]["accuracy"]


def test_a_network_without_any_gradient(case):
    model, data, _, stands = case
    finding = Adaptive(threat=THREAT, **{**QUICK, "decisions": 0, "corners": 0})(Cut(model), data)
    reasons = {row["label"]: row["reason"] for row in finding.data["not_run"]}
    assert {"PGD-20", "PGD-10 x 2", "PGD-10 x 2 (margin)", "accuracy over budgets"} <= set(reasons)
    assert reasons["PGD-20"].startswith("The model's output does not depend on its input")
    assert finding.data["reference"] is None
    assert finding.data["worst"]["accuracy"] == share(stands)
    assert finding.severity == "bad"
    assert "PGD-20, the usual one, does not work here" in finding.verdict


def test_where_nothing_runs_no_figure_is_made_up(case):
    model, data, *_ = case
    with pytest.raises(UserError, match="no attack of adaptive ran: The model's output does not depend"):
        Adaptive(threat=THREAT, **{**QUICK, **BLIND})(Cut(model, offers=False), data)


def test_other_networks_are_crafted_on(case):
    model, data, _, stands = case
    asked = Adaptive(threat=THREAT, models=[model], **{**QUICK, **BLIND})
    finding = asked(Masked(model, offers=False), data)
    assert finding.data["worst"]["accuracy"] == share(stands)
    assert rows(finding)["PGD-10 x 2 on surrogate 1"]["standing"]["accuracy"] == share(stands)
    assert finding.data["surrogates"] == 1


def test_corners_and_square_find_what_gradients_hide(case):
    model, data, _, stands = case
    asked = {**QUICK, **BLIND, "corners": 300, "corner_inputs": 100}
    found = Adaptive(threat=THREAT, **asked)(Masked(model, offers=False), data).data
    assert found["worst"]["accuracy"] == share(stands)  # of 6 values there are 64 corners
    (row,) = (row for row in found["rows"] if row["label"] == "Corners-300")
    assert row["kind"] == "gradient-free"
    assert row["standing"]["accuracy"] == share(stands)


def test_some_inputs_spread_over_those_of_the_audit(case):
    model, data, right, _ = case
    found = Adaptive(threat=THREAT, inputs=4, **{**QUICK, **BLIND})(model, data).data
    assert found["inputs"] == 4
    assert found["clean"]["accuracy"] == share(right[torch.tensor([0, 8, 15, 23])])


def test_ablations_are_found_behind_a_parallel_container():
    one = nn.Linear(6, 2)
    network = Normalized(nn.DataParallel(Parted(one, nn.Linear(6, 2))), 0.5, 1.0)
    (ablated,) = ablations_of(network).values()
    x = torch.rand(3, 6)
    assert torch.allclose(ablated(x), one(x - 0.5))


@pytest.mark.parametrize("around", [False, True])
def test_ablations_are_measured_on_inputs_and_points(nets, case, weight, around):
    _, data, right, stands = case
    half = nets.linear(weight / 2, -(weight.sum(1) * 0.25))
    parted = Parted(half, half)
    network = Normalized(parted, 0.0, 1.0) if around else parted
    (row,) = Adaptive(threat=THREAT, **{**QUICK, **BLIND})(network, data).data["ablations"]
    # Half of a linear network decides as the whole.
    assert row["label"] == "one alone"
    assert row["clean"]["accuracy"] == share(right)
    assert row["reference"]["accuracy"] == share(stands)
    (x, _), (ablated,) = data[0], ablations_of(network).values()
    assert torch.allclose(ablated(x), half(x))


def test_a_network_that_draws_is_judged_by_fresh_passes(case):
    model, data, _, stands = case

    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.honest = model

        def forward(self, x):
            return self.honest(x) + 1e-3 * torch.randn(len(x), 2)

    found = Adaptive(threat=THREAT, **{**QUICK, **BLIND})(Drawing(), data).data
    assert found["random"]
    assert found["worst"]["accuracy"] == pytest.approx(float(stands.double().mean()), abs=1 / 24)


@pytest.mark.parametrize(("norm", "spread"), [("linf", 1.0), ("l2", 10.0), ("l1", 100.0)])
def test_jitter_is_a_share_of_the_budget(norm, spread):
    x = torch.zeros(200, 100)
    moved = Jitter(Threat(norm=norm, eps=2.0), 0.25)(x, Random(0, torch.arange(200)))
    assert float(moved.std()) == pytest.approx(0.5 / spread, rel=0.03)


def test_the_attacks_are_what_they_are_called(case):
    model, data, *_ = case
    asked = Adaptive(threat=Threat(norm="l1", eps=0.5), models=[model], **{**QUICK, "curve": False})
    finding = asked(Masked(model), data)
    kinds = {row["kind"]: row["name"] for row in finding.data["rows"]}
    assert kinds["variant"] == "variant"
    assert kinds["transfer"] == "transfer"
    assert not any(row["name"] == "hopskipjump" for row in finding.data["rows"])  # not defined in l1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 0}, "steps must be a whole number of 1 or more; got 0"),
        ({"queries": -1}, "queries must be a whole number of 0 or more; got -1"),
        ({"jitter": 0.0}, "jitter must be a finite number above 0"),
        ({"tolerated": 1.0}, r"tolerated must be a number in \(0, 1\)"),
        ({"attack": "pgd"}, "adaptive needs an attack within a budget"),
        ({"models": nn.Identity()}, "models must be a list of networks; got a single one"),
        ({"models": [3]}, r"models\[0\] must be a torch module"),
    ],
)
def test_settings_that_mean_nothing(settings, told):
    with pytest.raises(UserError, match=told):
        Adaptive(**settings)


def test_what_only_a_job_can_do_and_a_budget_of_nothing(case):
    model, data, *_ = case
    with pytest.raises(UserError, match="models must be networks here; got 'runs/twin': load it first"):
        Adaptive(models=["runs/twin"])(model, data)
    with pytest.raises(UserError, match="adaptive is about one budget: give PGD-10 a finite eps; got 0"):
        Adaptive(attack=PGD(threat=Threat(eps=0.0)))(model, data)


def test_the_audit_is_registered():
    assert "adaptive" in audits.names()
