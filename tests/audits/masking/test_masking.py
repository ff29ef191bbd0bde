"""The trust audit: networks known to be broken are told, for the right reason; honest ones are left alone."""

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from buttress import audits, losses
from buttress.attacks.black_box.square import Square
from buttress.attacks.composed.bpda import BPDA
from buttress.attacks.composed.eot import EoT
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.cw import CW
from buttress.audits.base.finding import to_json
from buttress.audits.base.subject import subject
from buttress.audits.masking.audit import TESTS, Masking
from buttress.audits.masking.checks import CHECKS
from buttress.audits.masking.checks.logit_scale import Scaled as PlainLoss
from buttress.audits.masking.checks.paired_attacks import least_gap
from buttress.audits.masking.checks.proposal import attack_settings
from buttress.data.dataset import Split
from buttress.data.sets.digits import digits
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.fgsm_training import Fast
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.jobs.questions import proposed
from buttress.threat import Threat
from buttress.training import Optimiser

_place = importlib.util.spec_from_file_location("broken", Path(__file__).with_name("broken.py"))
broken = importlib.util.module_from_spec(_place)
_place.loader.exec_module(broken)

THREAT = Threat(eps=0.15)
QUICK = Masking(threat=THREAT, inputs=100, queries=150, draws=40)


@pytest.fixture(scope="session")
def split():
    return digits().test


@pytest.fixture(scope="session")
def plain():
    """Trained without any defence."""
    return broken.trained(broken.network(), optimiser=Optimiser(lr=3e-3))


def checks(finding):
    return {check["name"]: check for check in finding.data["checks"]}


def robust(model, attack, split):
    """Accuracy under an attack, computed by a call of the attack alone."""
    x, y, ids = split.take(torch.arange(len(split)))
    return float((~attack(model, x, y, ids=ids, search="first").success).double().mean())


HONEST = {
    "standard": lambda: None,
    "PGD-AT": lambda: AdversarialTraining(PGD(threat=THREAT, steps=5)),
    "TRADES": lambda: TRADES(threat=THREAT, steps=5),
    "FGSM-RS": lambda: Fast(threat=THREAT),
}


@pytest.mark.representatives(name=["standard", "PGD-AT"])
@pytest.mark.parametrize("name", HONEST)
def test_honest_networks_raise_no_alarm(name, split):
    model = broken.trained(broken.network(seed=2), HONEST[name](), optimiser=Optimiser(lr=3e-3))
    finding = QUICK(model, split)
    odd = {check["name"]: check for check in finding.data["checks"] if check["verdict"] in ("warn", "fail")}
    assert odd == {}
    assert (finding.data["verdict"], finding.severity, finding.data["next"]) == ("trustworthy", "good", None)
    assert finding.data["clean"] > 0.85
    assert [c["name"] for c in finding.data["checks"] if c["verdict"] == "not run"] == ["transfer"]
    count, least = finding.data["inputs"], finding.data["least_gap"]
    assert least == least_gap(count, level=finding.data["level_of_each"], floor=0.01, tolerated=0.05)
    told = f"A gap of less than {100 * least:.1f} points to a stronger attack cannot be shown with {count} inputs."
    assert finding.verdict.endswith(told)


def before(layer):
    return lambda plain: broken.Before(plain, layer())


# What is done to an undefended network, the check that must tell, its verdict, what its reason says, the attack to run.
BROKEN = {
    "quantised input": (before(broken.Quantised), "gradients", "zero or not finite", Square),
    "detached input": (before(broken.Detached), "gradients", "does not depend on the input", Square),
    "JPEG-like rounding": (before(broken.Jpeg), "gradients", "zero or not finite", Square),
    "thermometer coding": (before(broken.Thermometer), "gradients", "does not depend on the input", Square),
    "lookup layer": (before(broken.Lookup), "gradients", "does not depend on the input", Square),
    "rounding in use only": (before(broken.OnlyInUse), "train mode", "eval mode hides its gradient", Square),
    "made-up gradient": (before(broken.Astray), "agreement", "predicts little of what a step does", Square),
}


@pytest.mark.representatives(name=["rounding in use only", "made-up gradient"])  # the quantised one: below
@pytest.mark.parametrize("name", BROKEN)
def test_wrapped_networks_are_told(name, plain, split):
    defend, check, reason, attack = BROKEN[name]
    told(defend(plain).eval(), split, check, reason, attack, gain=0.2)


def told(model, split, check, reason, attack, *, gain, audit=QUICK, verdict="not trustworthy"):
    """The audit names the reason, and the attack that it proposes beats more than the one in question."""
    finding = audit(model, split)
    found = checks(finding)[check]
    assert found["verdict"] in ("warn", "fail")
    assert reason in found["reason"]
    assert reason in finding.data["why"]
    assert finding.data["verdict"] == verdict
    assert finding.severity == {"suspect": "warning", "not trustworthy": "bad"}[verdict]
    proposed = finding.next
    assert isinstance(proposed, attack)
    if finding.data["robust"] is not None:
        assert robust(model, proposed, split) < robust(model, audit.audited, split) - gain
    else:  # no gradient: the attack in question cannot even run
        assert robust(model, proposed, split) < finding.data["clean"] - gain
        with pytest.raises(UserError):
            robust(model, audit.audited, split)
    json.dumps(finding.data, allow_nan=False)
    return finding


def test_a_saturated_sigmoid_is_told(split):
    model = broken.trained(broken.Before(broken.network(), broken.Saturated()), optimiser=Optimiser(lr=3e-3))
    told(model, split, "gradients", "zero or not finite on", Square, gain=0.1)


def test_k_winners_are_told(split):
    """No single gradient is wrong there: it is the comparison with attacks that need none which tells."""
    model = broken.trained(broken.after(broken.network(), broken.Winners))
    told(model, split, "black box", "inputs that the attack misses", Square, gain=0.2)


RANDOM = {
    "random resizing and padding": lambda plain: broken.trained(
        broken.Before(broken.network(side=12), broken.ResizedAndPadded())
    ),
    "stochastic activation pruning": lambda plain: broken.after(plain, broken.Pruned).eval(),
}


@pytest.mark.representatives(name=["stochastic activation pruning"])
@pytest.mark.parametrize("name", RANDOM)
def test_networks_that_draw_are_told(name, plain, split):
    """Both attacks are judged by the mean of fresh passes at their points: a lucky pass proves nothing."""
    model = RANDOM[name](plain)
    finding = QUICK(model, split)
    found = checks(finding)["randomness"]
    assert finding.data["verdict"] in ("suspect", "not trustworthy")
    assert "The network is randomised" in finding.data["why"]
    assert found["figures"]["changed_verdicts"] > 0.1
    proposed = finding.next
    assert isinstance(proposed, EoT)
    x, y, ids = split.take(torch.arange(100))
    stands = []
    for attack in (proposed, QUICK.audited):
        x_adv = attack(model, x, y, ids=ids).x_adv
        with torch.no_grad(), torch.random.fork_rng([]):
            torch.manual_seed(7)
            mean = torch.stack([model(x_adv).softmax(1) for _ in range(60)]).mean(0)
        stands.append(float((mean.argmax(1) == y).double().mean()))
    assert stands[0] < stands[1] - 0.04


@pytest.mark.representatives(name=["logits times 10000"])
@pytest.mark.parametrize("name", ["logits times 10000", "distillation at temperature 100"])
def test_the_scale_of_logits_is_told(name, plain, split):
    """It misleads cross-entropy as commonly computed, in float32; the proposed attack is not misled."""
    model = broken.Scaled(plain).eval() if name.startswith("logits") else broken.distilled(plain)
    finding = QUICK(model, split)
    found = checks(finding)["scale"]
    assert finding.data["verdict"] in ("suspect", "not trustworthy")
    assert found["verdict"] == "warn"
    assert "scale of the logits" in finding.data["why"]
    common = PGD(threat=THREAT, steps=20, loss=PlainLoss())
    proposed = finding.next
    assert proposed == PGD(threat=THREAT, steps=20, loss="margin")
    assert robust(model, proposed, split) < robust(model, common, split) - 0.4


def test_training_on_single_steps_is_told_of_the_figure_under_them(split):
    """Many small steps beat what the network has learnt to stand: one large one."""
    threat = Threat(eps=0.4)
    model = broken.overfitted(threat)
    audit = Masking(attack=FGSM(threat=threat), inputs=120, queries=200)
    finding = told(model, split, "more steps", "it had not converged", PGD, gain=0.2, audit=audit)
    assert finding.data["attack"] == "FGSM"


# -- the form of the answer -------------------------------------------------------------------------------------------


def test_a_surrogates_examples_are_tried(plain, split):
    """An undefended copy tells what rounding hides; where nothing is hidden it tells nothing."""
    hidden = broken.Before(plain, broken.Quantised()).eval()
    audit = Masking(threat=THREAT, inputs=120, queries=1, draws=1, surrogate=plain)
    assert checks(audit(hidden, split))["transfer"]["verdict"] == "fail"
    assert checks(audit(plain, split))["transfer"]["verdict"] == "pass"


def test_few_inputs_show_nothing_and_that_is_said(plain, split):
    x, y, ids = split.take(torch.arange(8))
    finding = QUICK(plain, Split(x, y, ids))
    assert (finding.data["verdict"], finding.severity, finding.data["next"]) == ("suspect", "warning", None)
    assert "nothing can be shown on fewer than 12" in finding.verdict


def test_one_input_is_enough_to_ask(split):
    model = nn.Sequential(broken.network(), nn.BatchNorm1d(10)).eval()
    x, y, ids = split.take(torch.arange(1))
    finding = QUICK(model, Split(x, y, ids))
    assert finding.data["inputs"] == 1
    assert checks(finding)["train mode"]["verdict"] == "not run"


def test_what_was_asked_is_told(plain, split):
    finding = Masking(attack=PGD(threat=THREAT, steps=7), inputs=60, queries=5, draws=3, level=0.03)(plain, split)
    data = finding.data
    assert (data["attack"], data["norm"], data["eps"], data["inputs"]) == ("PGD-7", "linf", 0.15, 60)
    assert (data["level"], data["tests"], data["level_of_each"]) == (0.03, TESTS, 0.03 / TESTS)
    assert sum(check.tests for check in CHECKS) == TESTS
    assert [check["name"] for check in data["checks"]] == [check.name for check in CHECKS]
    assert "PGD-7 at linf eps 0.15 on 60 inputs" in finding.verdict
    for check, plain_check in zip(CHECKS, data["checks"], strict=True):
        assert check.tests >= sum(1 if pair["effort"] else 2 for pair in plain_check["comparisons"])
    pairs = [pair for check in data["checks"] for pair in check["comparisons"]]
    assert all(pair["level"] == data["level_of_each"] for pair in pairs)
    assert data["robust"] == pytest.approx(
        float((~PGD(threat=THREAT, steps=7)(plain, *chosen(split, 60), search="first").success).double().mean()),
        abs=0.1,
    )


def chosen(split, count):
    rows = torch.linspace(0, len(split) - 1, count).round().long()
    return split.take(rows)[:2]


def test_the_inputs_are_spread_over_those_of_the_audit(plain, split):
    about = subject(plain, split)
    context = Masking(inputs=7).context(about)
    assert context.subject.ids.tolist() == about.ids[torch.linspace(0, len(about.ids) - 1, 7).round().long()].tolist()
    assert Masking(inputs=10_000).context(about).count == len(about.ids)
    assert context.subject.store is about.store


def test_what_was_crafted_for_robustness_serves_again(plain, split):
    x, y, ids = split.take(torch.arange(40))
    about = subject(plain, Split(x, y, ids))
    audits.Robustness(attacks=[QUICK.audited], eps=[0.15]).ask(about)
    before = set(about.store)
    Masking(threat=THREAT, inputs=40).context(about).robust_under(QUICK.audited)
    assert set(about.store) == before


def test_a_norm_of_its_own_and_no_box(plain, split):
    finding = Masking(threat=Threat(norm="l2", eps=0.8), inputs=60, queries=60, draws=20)(plain, split)
    assert finding.data["verdict"] == "trustworthy"
    assert checks(finding)["unbounded"]["figures"]["standing"] == 0
    free = Masking(threat=Threat(eps=0.1, box=None), inputs=60, queries=60, draws=20)(plain, split)
    assert free.data["verdict"] == "trustworthy"


def test_the_model_comes_back_as_it_was(nets, plain, split):
    model = nn.Sequential(plain, nn.BatchNorm1d(10), nn.Dropout(0.1)).train()
    before = nets.state(model)
    Masking(threat=THREAT, inputs=30, queries=5, draws=2)(model, split)
    nets.assert_state(model, before)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"level": 0.0}, r"level must be a number in \(0, 1\); got 0.0"),
        ({"floor": 1.0}, r"floor must be a number in \(0, 1\); got 1.0"),
        ({"tolerated": -0.1}, r"tolerated must be a number in \(0, 1\)"),
        ({"inputs": 0}, "inputs must be a whole number of 1 or more; got 0"),
        ({"queries": 0}, "queries must be a whole number of 1 or more"),
        ({"draws": 0}, "draws must be a whole number of 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields, told):
    with pytest.raises(UserError, match=told):
        Masking(**fields)


def test_a_surrogate_by_name_is_for_jobs(plain, split):
    with pytest.raises(UserError, match="surrogate must be a network here; got 'runs/other'"):
        Masking(surrogate="runs/other")(plain, split)


def shifted(x):
    return x + 1


@pytest.mark.parametrize(
    ("attack", "tree"),
    [
        (
            PGD(threat=THREAT, steps=100, restarts=5, loss="margin"),
            {"name": "pgd", "steps": 100, "restarts": 5, "loss": "margin"},
        ),
        (Square(threat=THREAT, queries=77), {"name": "square", "queries": 77}),
        (
            EoT(attack=BPDA(attack=PGD(threat=THREAT, loss=PlainLoss()), layers=("a", "b"), backward=shifted), draws=3),
            {
                "name": "eot",
                "draws": 3,
                "attack": {
                    "name": "bpda",
                    "layers": ["a", "b"],
                    "backward": f"{__name__}:shifted",
                    "attack": {"name": "pgd", "loss": "buttress.audits.masking.checks.logit_scale:Scaled"},
                },
            },
        ),
        (
            Transfer(attack=FGSM(threat=THREAT), surrogate=nn.Flatten()),
            {
                "name": "transfer",
                "surrogate": "torch.nn.modules.flatten:Flatten",
                "attack": {"name": "fgsm"},
            },
        ),
    ],
)
def test_a_proposal_is_told_as_plain_data(attack, tree):
    def innermost(tree):
        return innermost(tree["attack"]) if "attack" in tree else tree

    innermost(tree)["threat"] = {"norm": "linf", "eps": 0.15, "box": [0.0, 1.0]}
    assert json.loads(json.dumps(attack_settings(attack))) == tree


def asked_next(attack, split, model, **settings):
    """What the audit proposes, and what the job then runs beside the attack in question."""
    audit = replace(QUICK, attack=attack, inputs=40, queries=20, draws=5, **settings)
    finding = audit(model, split)
    json.loads(to_json({"net": [finding]}, {}))
    (asked,) = proposed([audit], [finding])
    assert asked.attacks == [attack, finding.next]
    return finding


@pytest.mark.parametrize("surrogate", [None, nn.Sequential(nn.Flatten(), nn.Linear(64, 10))])
def test_a_transfer_attack_keeps_its_own_surrogate(plain, split, surrogate):
    """Not the audit's, which is another question's, and not none. Five times the steps on it win most."""
    attack = Transfer(attack=PGD(threat=THREAT, steps=1, step_size=0.03, start="zero"), surrogate=plain)
    finding = asked_next(attack, split, plain, surrogate=surrogate)
    assert finding.data["verdict"] == "not trustworthy"
    assert isinstance(finding.next, Transfer)
    assert finding.next.surrogate is plain
    assert robust(plain, finding.next, split) < robust(plain, attack, split) - 0.1


def test_wrappers_in_one_another_keep_what_is_theirs(plain, split):
    """Two BPDAs, each with a stand-in of its own, or the outer one with none."""
    model = nn.Sequential(broken.Quantised(), broken.Quantised(), plain).eval()

    def f(x):
        return 2 * x

    def g(x):
        return 3 * x

    short = PGD(threat=THREAT, steps=1, step_size=0.03, start="zero")
    for outer in (g, None):
        inner = BPDA(attack=short, layers="0", backward=f)
        finding = asked_next(BPDA(attack=inner, layers="1", backward=outer), split, model)
        assert finding.data["verdict"] == "not trustworthy"
        assert (finding.next.layers, finding.next.backward) == (("1",), outer)
        assert (finding.next.attack.layers, finding.next.attack.backward) == (("0",), f)
        assert finding.next.attack.attack.steps == 100


def test_an_attack_of_a_class_that_is_nowhere_to_import_from(plain, split):
    @dataclass(frozen=True, kw_only=True)
    class Local(PGD):
        pass

    attack = Local(threat=THREAT, steps=1, step_size=0.03, start="zero", loss=losses.margin)
    finding = asked_next(attack, split, plain)
    assert finding.next == replace(attack, steps=100)
    assert "<locals>" in finding.data["next"]["name"]


def test_the_figure_of_an_adaptive_attack_is_judged_by_its_own_gradient(plain, split):
    """Of the rounded network every gradient is 0; through the rounding it is that of the network behind."""
    model = broken.Before(plain, broken.Quantised()).eval()
    finding = replace(QUICK, attack=BPDA(attack=PGD(threat=THREAT, steps=20), layers="prepare"))(model, split)
    odd = [check for check in finding.data["checks"] if check["verdict"] in ("warn", "fail")]
    assert odd == []
    assert (finding.data["verdict"], finding.next) == ("trustworthy", None)
    assert checks(finding)["gradients"]["figures"] == {"zero": 0, "faint": 0}
    told(model, split, "gradients", "zero or not finite", Square, gain=0.2)  # of an attack that does not look through


@pytest.mark.parametrize("attack", [Gaussian(), 3])
def test_what_is_no_attack_is_not_questioned(attack):
    with pytest.raises(UserError, match="questions an attack within a budget"):
        Masking(attack=attack)


@pytest.mark.parametrize("attack", [PGD(threat=Threat(eps=0)), EoT(attack=CW(steps=2), draws=1)])
def test_a_figure_without_a_budget_is_not_questioned(plain, split, attack):
    with pytest.raises(UserError, match="robust accuracy at a budget"):
        Masking(attack=attack)(plain, split)
