import math
from dataclasses import dataclass, replace

import pytest
import torch

from buttress import audits
from buttress.attacks import Attack
from buttress.attacks.composed.bpda import BPDA
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.ddn import DDN
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.audits.robustness import Robustness, at_budget, interval
from buttress.data.dataset import Split
from buttress.engine.composition import staged
from buttress.errors import UserError
from buttress.threat import Threat

FREE = Threat(eps=0.2, box=None)


def ask(model, x, y, audit, **settings):
    return audits.run(model, Split(x, y, torch.arange(len(y))), [audit], **settings)[0]


@pytest.mark.parametrize("wrap", [lambda attack: attack, lambda attack: BPDA(attack=attack)])
def test_the_verdict_names_the_budget_of_its_figure_also_around_minimum_norm_attacks(line, wrap):
    model, x, y, _ = line
    smallest = wrap(DDN(threat=Threat(norm="l2", eps=math.inf, box=(-9, 9)), steps=9))
    limited = PGD(threat=Threat(norm="l2", eps=0.15, box=(-9, 9)), steps=3)
    finding = ask(model, x, y, Robustness(attacks=[smallest, limited]))
    assert finding.data["main_eps"] == 0.15
    assert "l2 eps 0.15" in finding.verdict
    assert finding.data["attacks"][0]["distances"]["found"] > 0


def test_a_median_that_is_not_known_is_not_told(line):
    model, x, y, _ = line
    out_of_reach = DDN(threat=Threat(norm="l2", eps=math.inf, box=(-9, 9)), steps=1)
    far = torch.nn.Sequential(model, torch.nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        far[1].weight.zero_()  # one class for all: nothing can be found
    finding = ask(far, x, torch.zeros_like(y), Robustness(attacks=[out_of_reach], eps=[0.1]))
    assert "median" not in finding.verdict
    assert "inf" not in finding.verdict


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
    finding = ask(model, x, y, Robustness(attacks=[attack], noises=[noise], reuse=False), seed=5)
    ids = torch.arange(len(y))
    result, moved = (thing(model, x, y, seed=5, ids=ids, search="first") for thing in (attack, noise))
    row, other = finding.data["attacks"][0], finding.data["noises"][0]
    assert row["forwards"] == float(result.forwards.double().mean())
    assert row["backwards"] == float(result.backwards.double().mean())
    assert row["seconds"] > 0
    sweep = [replace(attack, threat=replace(FREE, eps=0.2 * s)) for s in (0.25, 0.5, 1.0, 1.5, 2.0)]
    results = [one(model, x, y, seed=5, ids=ids, search="first") for one in sweep]
    assert row["total"]["forwards"] == pytest.approx(sum(float(r.forwards.double().mean()) for r in results))
    assert row["total"]["seconds"] > row["seconds"]
    assert row["stages"] == []
    assert other["accuracy"] == float((~moved.success).double().mean())
    assert (row["label"], other["label"]) == ("PGD-4", "gaussian")


def test_an_infinite_budget_is_told_and_kept(line, tmp_path):
    from buttress import report
    from buttress.audits.base.finding import read

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
        ({"eps": [-0.1]}, "eps must be a number of 0 or more; got"),
        ({"eps": [math.nan]}, "eps must be a number of 0 or more; got"),
    ],
)
def test_what_asks_nothing_is_refused(fields, told):
    with pytest.raises(UserError, match=told):
        Robustness(**fields)


@pytest.mark.parametrize(("eps", "severity"), [(0.01, "good"), (0.2, "warning"), (0.5, "bad"), (2.0, "bad")])
def test_severity_follows_the_share_that_stands(line, eps, severity):
    model, x, y, _ = line
    audit = Robustness(attacks=[FGSM(threat=Threat(eps=eps, box=None))], eps=[eps])
    assert ask(model, x, y, audit).severity == severity


@dataclass(frozen=True, kw_only=True)
class Fickle(Attack):
    """A step by the sign of the gradient, for larger budgets only of one input in nine."""

    threat: Threat = Threat()

    def perturb(self, oracle, x, y, random):
        _, grad = oracle.loss_and_grad(x)
        lazy = (self.threat.eps > 0.15) & (random.ids % 9 > 0)
        return x + self.threat.eps * grad.sign() * (~lazy)[:, None]


@pytest.mark.parametrize("kind", [Fickle, FGSM])
def test_what_fell_at_a_smaller_budget_counts_as_fallen_at_the_larger_ones(line, kind):
    """The plain sweep's verdicts, each together with those at smaller budgets; what is known is not attacked again."""
    model, x, y, _ = line
    eps, ids = [0.05, 0.1, 0.2, 0.3], torch.arange(len(y))
    attack = kind(threat=FREE)
    results = [replace(attack, threat=replace(FREE, eps=e))(model, x, y, ids=ids, search="first").success for e in eps]
    plain, reused = (ask(model, x, y, Robustness(attacks=[attack], eps=eps, reuse=r)) for r in (False, True))
    right = model(x).argmax(1) == y
    stands, fallen = [right], right
    for success in results:
        fallen = fallen & ~success
        stands.append(fallen)
    curves = [finding.data["attacks"][0]["curve"] for finding in (plain, reused)]
    assert [p["accuracy"] for p in curves[0]] == [
        float((right & ~b).double().mean()) for b in (torch.zeros_like(right), *results)
    ]
    assert [p["accuracy"] for p in curves[1]] == [float(s.double().mean()) for s in stands]
    rises = [one["accuracy"] > before["accuracy"] for before, one in zip(curves[0], curves[0][1:], strict=False)]
    assert any(rises) == (kind is Fickle)  # the case says something
    assert [p["reused"] for p in curves[0]] == [0] * 5
    assert [p["reused"] for p in curves[1]] == [0, 0, *(int((right & ~s).sum()) for s in stands[1:4])]
    assert (plain.data["reuse"], reused.data["reuse"]) == (False, True)
    both = list(zip(plain.data["stands"]["main"], reused.data["stands"]["main"], strict=True))
    assert ("0", "1") not in both
    spent = [finding.data["attacks"][0]["total"]["backwards"] for finding in (plain, reused)]
    asked = [right, *stands[1:4]]
    assert spent == pytest.approx([4 * float(right.double().mean()), sum(float(s.double().mean()) for s in asked)])


def test_reused_and_plain_results_do_not_meet_in_the_store(line):
    model, x, y, _ = line
    eps = [0.05, 0.1, 0.2]
    alone = [ask(model, x, y, Robustness(attacks=[Fickle(threat=FREE)], eps=eps, reuse=r)) for r in (True, False)]
    audit = [Robustness(attacks=[Fickle(threat=FREE)], eps=eps, reuse=r) for r in (True, False)]
    together = audits.run(model, Split(x, y, torch.arange(len(y))), audit)
    for one, other in zip(alone, together, strict=True):
        assert one.data["stands"] == other.data["stands"]
        assert one.data["worst"] == other.data["worst"]


def test_when_all_have_fallen_nothing_is_attacked(line):
    model, x, y, _ = line
    finding = ask(model, x, y, Robustness(attacks=[FGSM(threat=Threat(eps=9.0, box=None))], eps=[9.0, 18.0]))
    (row,) = finding.data["attacks"]
    assert [p["accuracy"] for p in row["curve"]][1:] == [0, 0]
    assert row["total"] == {name: row[name] for name in ("forwards", "backwards", "seconds")}


@dataclass(frozen=True, kw_only=True)
class Nearest(MinimumNorm):
    """For a linear network of two classes: the projection on the line between them, and a little further.

    Inputs further away than ``reach`` are given up.
    """

    threat: Threat = Threat(norm="l2", eps=math.inf, box=None)
    reach: float = math.inf

    def perturb(self, oracle, x, y, random):
        book = Smallest(oracle, self.threat)
        value, slope = oracle.nearest_face(x, (1 - y)[:, None], lambda rows, value, grad: value.abs())
        gap, slope = -value, slope.double()
        length = slope.square().sum(1).clamp(min=1e-30)
        near = gap / length.sqrt() <= self.reach
        points = x + ((1 + 1e-5) * near * gap / length)[:, None].to(x) * slope.to(x)
        oracle.logits(points)
        book.offer(points)
        return book.point


def reach(line):
    """(N,) signed distance of each input to the line, in l2: below 0 where the network is wrong."""
    _, x, y, w = line
    return (2 * y - 1) * (x @ w) / torch.linalg.vector_norm(w)


def test_one_run_of_a_minimum_norm_attack_gives_the_whole_curve(line):
    model, x, y, _ = line
    far = reach(line)
    eps = [0.1, 0.3, 0.5]
    finding = ask(model, x, y, Robustness(attacks=[Nearest()], eps=eps), seed=3)
    (row,) = finding.data["attacks"]
    assert finding.data["main_eps"] == 0.1
    expected = [float((far > e).double().mean()) for e in (0.0, *eps)]
    assert [p["accuracy"] for p in row["curve"]] == expected
    assert finding.data["worst"][2]["accuracy"] == expected[2]
    found = row["distances"]
    needed = far[far > 0].sort().values
    assert (found["found"], found["right"]) == (len(needed), len(needed))
    middle = float((needed[len(needed) // 2] + needed[(len(needed) - 1) // 2]) / 2)
    assert found["median"] == pytest.approx(middle, rel=1e-4)
    assert found["low"] < middle < found["high"]
    assert found["low"] > 0.1
    assert found["high"] < 1
    assert len(found["curve"]) == 101
    for point in found["curve"]:
        assert point["accuracy"] == pytest.approx(
            float((far > point["eps"] * (1 + 2e-5)).double().mean()), abs=1.01 / 200
        )
        assert point["low"] <= point["accuracy"] <= point["high"]
    assert found["curve"][0]["accuracy"] == expected[0]
    assert found["curve"][-1]["accuracy"] == 0
    assert f"The median l2 distance to an adversarial example is at most {middle:.3g} (" in finding.verdict
    assert finding.data["distances"] == found
    right = far > 0
    assert row["backwards"] == pytest.approx(float(right.double().mean()))
    assert row["total"] == {name: row[name] for name in ("forwards", "backwards", "seconds")}


def test_where_no_perturbation_was_found_the_input_stands_at_every_budget(line, tmp_path):
    from buttress import report
    from buttress.audits.base.finding import read

    model, x, y, _ = line
    far = reach(line)
    finding = ask(model, x, y, Robustness(attacks=[Nearest(reach=0.2)]))
    found = finding.data["attacks"][0]["distances"]
    assert finding.data["main_eps"] == math.inf
    assert found["found"] == int(((far > 0) & (far <= 0.2)).sum())
    assert found["median"] == math.inf
    assert [p["accuracy"] for p in finding.data["worst"]] == [
        float((far > 0).double().mean()),
        float((far > 0.2).double().mean()),
    ]
    page = report.write(tmp_path, {"net": [finding]}, {}, title="t", headline="h").read_text()
    back = read(tmp_path / "findings.json")[0]["net"][0]
    assert report.write(tmp_path / "b", {"net": [back]}, {}, title="t", headline="h").read_text() == page
    assert "∞" in page


def test_minimum_norm_and_other_attacks_share_an_audit(line):
    """The other attack has a limit, so its budget is the main one; worst is input by input."""
    model, x, y, _ = line
    far = reach(line)
    step = FGSM(threat=Threat(norm="l2", eps=0.2, box=None))
    audit = Robustness(attacks=[Nearest(reach=0.15), step], eps=[0.1])
    assert (audit.main_eps, audit.budgets) == (0.2, [0, 0.1, 0.2])
    assert [run.threat.eps for run in audit.runs] == [math.inf, 0.1, 0.2]
    finding = ask(model, x, y, audit, seed=1)
    assert finding.data["stands"]["main"] == "".join(str(int(d > 0.2)) for d in far)
    (pair,) = finding.data["paired"]
    assert (pair["first"], pair["second"]) == ("Nearest", "FGSM")
    assert (pair["gained"], pair["lost"]) == (0, int(((far > 0.15) & (far <= 0.2)).sum()))
    assert pair["lost"] > 5
    assert pair["difference"] == pytest.approx(-pair["lost"] / 200)
    assert pair["low"] <= pair["difference"] <= pair["high"] < 0
    assert pair["p"] == pytest.approx(2 * 0.5 ** pair["lost"])


@dataclass(frozen=True, kw_only=True)
class Twice(FGSM):
    """A half step, then a whole one on what stands."""

    def perturb(self, oracle, x, y, random):
        points = x
        for name, share in (("half", 0.5), ("whole", 1.0)):
            rows = oracle.alive.nonzero().squeeze(1)
            part = FGSM(threat=replace(self.threat, eps=share * self.threat.eps))
            points = points.index_put((rows,), staged(oracle, part, rows, random, name)[0])
        return points


def test_the_parts_of_a_composed_attack_are_told(line):
    model, x, y, w = line
    far = (2 * y - 1) * (x @ w) / torch.linalg.vector_norm(w, 1)
    finding = ask(model, x, y, Robustness(attacks=[Twice(threat=FREE)], eps=[0.2]))
    half, whole = finding.data["attacks"][0]["stages"]
    right = int((far > 0).sum())
    assert (half["name"], half["entered"], half["beaten"]) == ("half", right, int(((far > 0) & (far <= 0.1)).sum()))
    assert (whole["name"], whole["entered"]) == ("whole", right - half["beaten"])
    assert whole["beaten"] == int(((far > 0.1) & (far <= 0.2)).sum())
    assert half["backwards"] == right


def test_the_nearest_of_all_minimum_norm_attacks_is_told_input_by_input(line):
    model, x, y, _ = line
    far = reach(line)
    attacks = [Nearest(reach=0.2), Nearest()]
    finding = ask(model, x, y, Robustness(attacks=attacks, eps=[0.1]))
    first, second = (row["distances"] for row in finding.data["attacks"])
    assert first["median"] == math.inf
    assert finding.data["distances"] == second
    assert first["found"] == int(((far > 0) & (far <= 0.2)).sum()) < second["found"]
