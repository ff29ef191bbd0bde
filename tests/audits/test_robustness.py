import math

import pytest
import torch

from buttress import audits
from buttress.attacks.fgsm import FGSM
from buttress.attacks.gaussian import Gaussian
from buttress.attacks.pgd import PGD
from buttress.audits.robustness import Robustness, at_budget, interval
from buttress.data.base import Split
from buttress.errors import UserError
from buttress.threat import Threat

FREE = Threat(eps=0.2, box=None)


def ask(model, x, y, audit, **settings):
    return audits.run(model, Split(x, y, torch.arange(len(y))), [audit], **settings)[0]


@pytest.mark.parametrize(("kind", "norm", "dual"), [(FGSM, "linf", 1), (FGSM, "l2", 2), (PGD, "linf", 1)])
def test_accuracies_of_a_linear_network_are_those_of_the_closed_form(line, kind, norm, dual):
    """An input stands at eps while its distance to the line, in the dual norm, is larger."""
    model, x, y, w = line
    eps = [0.05, 0.15, 0.4]
    threat = Threat(norm=norm, eps=0.15, box=None)
    finding = ask(model, x, y, Robustness(attacks=[kind(threat=threat)], eps=eps))
    distance = (2 * y - 1) * (x @ w) / torch.linalg.vector_norm(w, dual)
    expected = [float((distance > e).double().mean()) for e in (0.0, *eps)]
    curve = finding.data["attacks"][0]["curve"]
    assert [point["eps"] for point in curve] == [0.0, *eps]
    assert [point["accuracy"] for point in curve] == expected
    assert 0.05 < expected[3] < expected[2] < expected[1] < expected[0] < 1  # the case says something
    assert finding.data["attacks"][0]["r_and_g"] == pytest.approx(100 * sum(expected))
    assert finding.data["stands"]["clean"] == "".join(str(int(d > 0)) for d in distance)
    assert finding.data["stands"]["main"] == "".join(str(int(d > 0.15)) for d in distance)
    assert f"{expected[2]:.1%}" in finding.verdict
    assert f"at {norm} eps 0.15" in finding.verdict


def tail(successes, count, p):
    """P(X >= successes) of a binomial."""
    return sum(math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(successes, count + 1))


@pytest.mark.parametrize(("successes", "count"), [(0, 7), (7, 7), (1, 20), (13, 40), (39, 40)])
def test_the_interval_leaves_two_and_a_half_percent_on_either_side(successes, count):
    low, high = interval(successes, count)
    assert low == 0 if successes == 0 else tail(successes, count, low) == pytest.approx(0.025, abs=1e-9)
    assert high == 1 if successes == count else 1 - tail(successes + 1, count, high) == pytest.approx(0.025, abs=1e-9)


def test_the_worst_case_is_over_all_attacks_input_by_input(line):
    """Two attacks that beat different inputs together beat both kinds."""
    model, x, y, _ = line
    pull = [PGD(threat=FREE, steps=1, step_size=0.2, start="zero", loss=one_sided(side)) for side in (0, 1)]
    finding = ask(model, x, y, Robustness(attacks=pull))
    both = ask(model, x, y, Robustness(attacks=[FGSM(threat=FREE)]))
    assert finding.data["stands"]["main"] == both.data["stands"]["main"]
    alone = [row["curve"][3]["accuracy"] for row in finding.data["attacks"]]
    together = finding.data["worst"][3]["accuracy"]
    assert finding.data["worst"][3]["eps"] == finding.data["main_eps"] == 0.2
    assert together < min(alone)


def one_sided(side):
    def loss(logits, y):
        return (logits[:, 1 - side] - logits[:, side]) * (y == side)

    loss.__qualname__ = f"one_sided_{side}"
    return loss


def test_budgets_are_fractions_of_the_main_one_and_those_of_the_other_attacks():
    audit = Robustness(attacks=[FGSM(threat=Threat(eps=0.4)), FGSM(threat=Threat(eps=0.3))])
    assert audit.budgets == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
    assert Robustness(attacks=[FGSM(threat=Threat(eps=math.inf))]).budgets == [0, math.inf]
    assert Robustness(attacks=[FGSM(threat=Threat(eps=0.1))], eps=[0.5]).budgets == [0, 0.1, 0.5]


def test_an_explicit_step_size_keeps_its_proportion():
    attack = PGD(threat=Threat(eps=0.5), step_size=0.125, steps=3)
    assert at_budget(attack, 0.25) == PGD(threat=Threat(eps=0.25), step_size=0.0625, steps=3)
    assert at_budget(attack, math.inf) == PGD(threat=Threat(eps=math.inf), step_size=0.125, steps=3)
    assert at_budget(FGSM(), 0.3) == FGSM(threat=Threat(eps=0.3))


def test_costs_and_noises_are_those_of_the_calls(line):
    model, x, y, _ = line
    attack, noise = PGD(threat=FREE, steps=4), Gaussian(std=0.3, box=None)
    finding = ask(model, x, y, Robustness(attacks=[attack], noises=[noise]), seed=5)
    ids = torch.arange(len(y))
    result, moved = (thing(model, x, y, seed=5, ids=ids, search="first") for thing in (attack, noise))
    row, other = finding.data["attacks"][0], finding.data["noises"][0]
    assert row["forwards"] == float(result.forwards.double().mean())
    assert row["backwards"] == float(result.backwards.double().mean())
    assert row["seconds"] > 0
    assert other["accuracy"] == float((~moved.beaten).double().mean())
    assert (row["label"], other["label"]) == ("PGD-4", "gaussian")


def test_an_infinite_budget_is_told_and_kept(line, tmp_path):
    from buttress import report
    from buttress.audits.finding import read

    model, x, y, _ = line
    everywhere = Threat(eps=math.inf, box=(-4, 4))
    finding = ask(model, x, y, Robustness(attacks=[FGSM(threat=everywhere)]))
    assert finding.data["worst"][-1]["accuracy"] == 0
    assert "eps ∞" in finding.verdict
    assert finding.severity == "bad"
    page = report.write(tmp_path, {"net": [finding]}, {}, title="t", headline="h").read_text()
    assert "Infinity" not in page
    assert read(tmp_path / "findings.json")[0]["net"][0].data["worst"][-1]["eps"] == math.inf


@pytest.mark.parametrize(
    ("threats", "told"),
    [((FREE, Threat(norm="l2", eps=0.2, box=None)), "a norm; got linf and l2"), ((FREE, Threat(eps=0.2)), "a box")],
)
def test_budgets_that_cannot_be_compared_are_refused(line, threats, told):
    model, x, y, _ = line
    with pytest.raises(UserError, match=f"share {told}"):
        ask(model, x, y, Robustness(attacks=[FGSM(threat=threat) for threat in threats]))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"attacks": []}, "at least one attack"),
        ({"attacks": [Gaussian()]}, "gaussian has no threat"),
        ({"eps": [-0.1]}, "eps must be 0 or more"),
        ({"eps": [math.nan]}, "eps must be 0 or more"),
    ],
)
def test_what_asks_nothing_is_refused(fields, told):
    with pytest.raises(UserError, match=told):
        Robustness(**fields)


@pytest.mark.parametrize(("eps", "severity"), [(0.01, "good"), (0.5, "warning"), (2.0, "bad")])
def test_severity_follows_the_share_that_stands(line, eps, severity):
    model, x, y, _ = line
    audit = Robustness(attacks=[FGSM(threat=Threat(eps=eps, box=None))], eps=[eps])
    assert ask(model, x, y, audit).severity == severity
