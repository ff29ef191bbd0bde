"""Single checks on functions of one variable whose surface is known."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from buttress.attacks.black_box.square import Square
from buttress.attacks.composed.autoattack import AutoAttack
from buttress.attacks.composed.bpda import BPDA
from buttress.attacks.composed.eot import EoT
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.gradient.bim import BIM
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.gradient.tpgd import TPGD
from buttress.attacks.minimum_norm.fmn import FMN
from buttress.audits.base.subject import subject
from buttress.audits.masking.audit import Masking, overall_verdict, run_check
from buttress.audits.masking.checks import CHECKS
from buttress.audits.masking.checks.budget import Budget, Unbounded
from buttress.audits.masking.checks.check import Result, through, varied
from buttress.audits.masking.checks.effort import OtherLoss, Restarts, Steps
from buttress.audits.masking.checks.gradient_free import BlackBox, RandomSearch
from buttress.audits.masking.checks.gradient_health import Agreement, Gradients, Roughness
from buttress.audits.masking.checks.logit_scale import Scale
from buttress.audits.masking.checks.one_step import OneStep
from buttress.audits.masking.checks.other_networks import TrainMode
from buttress.audits.masking.checks.proposal import averaged, black_box
from buttress.audits.masking.checks.randomness import Randomness
from buttress.audits.masking.checks.raw_gradients import Neighbours, cosines
from buttress.losses import margin
from buttress.threat import Threat

ONE = Threat(eps=1.0, box=None)


class Margin(nn.Module):
    """Two logits (0, f(x)) of one feature; all inputs are of class 0, which loses where f is positive."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        value = self.f(x[:, :1])
        return torch.cat([torch.zeros_like(value), value], 1)


def context(f, attack=None, *, x=None, **settings):
    """40 inputs around 0, or those given, all of class 0."""
    x = torch.linspace(-0.02, 0.02, 40)[:, None] if x is None else x
    model = f if isinstance(f, nn.Module) else Margin(f)
    about = subject(model, [(x, torch.zeros(len(x), dtype=torch.int64))], classes=("a", "b"))
    return Masking(attack=attack or PGD(threat=ONE, steps=10), **settings).context(about)


def wave(x):
    """Below 0 at 0 and at 1, where the first gradient leads, and above 0 half way."""
    return torch.sin(1.33 * math.pi * x - 0.3)


def test_half_a_step_that_beats_more_than_a_whole_one_is_told():
    found = OneStep().ask(context(wave))
    assert found.verdict == "warn"
    assert "Half a step succeeds on 100.0% more" in found.reason
    assert found.next == PGD(threat=ONE, steps=50)
    straight = OneStep().ask(context(lambda x: x - 0.3))
    assert straight.verdict == "pass"
    assert all(pair.surplus <= 0 for pair in straight.comparisons)


def test_one_step_that_beats_more_than_many_is_told():
    """The many are too short: ten steps of a hundredth reach 0.1, the border is at 0.3."""
    found = OneStep().ask(context(lambda x: x - 0.3, PGD(threat=ONE, steps=10, step_size=0.01, start="zero")))
    assert found.verdict == "fail"
    assert "One step succeeds on 100.0% more" in found.reason


def test_a_budget_that_beats_less_than_half_of_it_is_told():
    found = Budget().ask(context(wave, FGSM(threat=ONE)))
    assert found.verdict == "fail"
    assert "0.5 eps succeeds on 100.0% more of the inputs than 1 eps" in found.reason
    assert found.figures == {"robust_at_0.5_eps": 0, "robust_at_1_eps": 1, "robust_at_2_eps": 0}
    fine = Budget().ask(context(lambda x: x - 0.7, FGSM(threat=ONE)))
    assert fine.figures == {"robust_at_0.5_eps": 1, "robust_at_1_eps": 0, "robust_at_2_eps": 0}
    assert fine.verdict == "pass"


def test_a_budget_without_a_half_is_not_asked():
    assert Budget().ask(context(wave, PGD(threat=Threat(eps=math.inf, box=(-3, 3)), steps=2))).verdict == "not run"
    assert Budget().ask(context(wave, PGD(threat=Threat(eps=0.0, box=None), steps=2))).verdict == "not run"


def test_budgets_reach_into_an_attack_that_holds_another():
    found = Budget().ask(context(lambda x: x - 0.7, EoT(attack=FGSM(threat=ONE), draws=2)))
    assert found.figures == {"robust_at_0.5_eps": 1, "robust_at_1_eps": 0, "robust_at_2_eps": 0}


def test_what_stands_without_a_budget_is_told():
    """Beyond 0.99 the network loses, and its gradient leads the other way: only some random starts get there."""
    x = torch.linspace(-1, 1, 101)[:, None]
    found = Unbounded().ask(context(lambda x: 3.0 * (x > 0.99) - 1 - 0.1 * x, x=x))
    assert found.verdict == "fail"
    assert 0.3 < found.figures["standing"] < 1
    assert isinstance(found.next, Square)
    for threat in (ONE, Threat(eps=0.1, box=(-1.0, 1.0)), Threat(norm="l2", eps=0.1, box=None)):
        found = Unbounded().ask(context(lambda x: x - 0.9, PGD(threat=threat), x=x))
        assert (found.verdict, found.figures) == ("pass", {"standing": 0})


def test_one_that_answers_one_class_may_stand_everywhere():
    assert Unbounded().ask(context(lambda x: 0.1 * torch.tanh(x) - 1)).verdict == "not run"


def test_an_attack_that_has_not_converged_is_told():
    """Twenty steps of a hundredth reach 0.2, a hundred reach 1; the border is at 0.5."""
    slow = PGD(threat=ONE, steps=20, step_size=0.01, start="zero")
    found = Steps().ask(context(lambda x: x - 0.5, slow))
    assert found.verdict == "fail"
    assert found.next == PGD(threat=ONE, steps=100, step_size=0.01, start="zero")
    assert Steps().ask(context(lambda x: x - 0.1, slow)).verdict == "pass"


def test_more_steps_that_are_led_astray_are_told():
    """One step of 1 leaps over the ditch at 0.3; the gradient leads those that are short back from it."""
    ditch = context(
        lambda x: torch.where(x > 0.3, x - 0.5, 0.1 - (x - 0.1).abs() - 1), PGD(threat=ONE, steps=1, start="zero")
    )
    found = Steps().ask(ditch)
    assert found.verdict == "fail"
    assert "PGD-100 succeeds on 100.0% fewer of the inputs than PGD-1" in found.reason


def test_the_loss_that_is_tried_is_the_other_one():
    assert OtherLoss().changes(context(wave)) == {"loss": "margin"}
    assert OtherLoss().changes(context(wave, PGD(threat=ONE, loss="margin"))) == {"loss": "cross_entropy"}


def test_gradients_that_are_missing_zero_or_faint_are_told():
    cases = {
        "does not depend on the input": lambda x: x.detach() - 1,
        "zero or not finite on 100%": lambda x: torch.round(x) - 1,
        "zero or not finite on 50%": lambda x: torch.relu(x) - 1,
        "next to nothing on 100%": lambda x: 1e-4 * x - 1,
    }
    for told, f in cases.items():
        found = Gradients().ask(context(f, PGD(threat=Threat(eps=0.5, box=(-1.0, 1.0)))))
        assert found.verdict == "fail"
        assert told in found.reason
        assert isinstance(found.next, Square)
    fine = Gradients().ask(context(lambda x: x - 1))
    assert (fine.verdict, fine.figures) == ("pass", {"zero": 0, "faint": 0})


def test_an_attack_that_asks_for_no_gradient_misses_none():
    square = Square(threat=ONE, queries=30)
    asked = context(lambda x: x.detach() - 0.5, square)
    assert Gradients().ask(asked).verdict == "pass"
    assert not asked.robust.any()
    assert BlackBox().ask(asked).verdict == "pass"
    assert run_check(OneStep(), asked).verdict == "not run"


def test_a_gradient_that_is_no_number_counts_as_none():
    found = Gradients().ask(context(lambda x: torch.sqrt((x - x).abs()) - 1))
    assert found.figures["zero"] == 1


def test_a_straight_surface_is_smooth_and_its_gradient_true():
    asked = context(lambda x: 3 * x - 1, x=torch.linspace(-1, 1, 40)[:, None])
    for check in (Agreement(), Roughness()):
        found = check.ask(asked)
        assert found.verdict == "pass"
        assert found.figures["median_cosine"] == pytest.approx(1, abs=1e-5)
        assert found.figures["share_below"] == 0


def test_a_rough_surface_is_told():
    """Fine waves in 64 oblique directions: a neighbour's gradient is another one, and promises nothing."""
    random = torch.Generator().manual_seed(0)
    waves = 300 * torch.randn(64, 64, generator=random)
    rough = nn.Module()
    rough.forward = lambda x: torch.stack([torch.zeros(len(x)), torch.sin(x @ waves).sum(1) - 60], 1)
    x = torch.rand(100, 64, generator=random)
    about = subject(rough, [(x, torch.zeros(100, dtype=torch.int64))])
    asked = Masking(attack=PGD(threat=Threat(eps=0.2))).context(about)
    for check in (Agreement(), Roughness()):
        found = check.ask(asked)
        assert found.verdict == "warn"
        assert abs(found.figures["median_cosine"]) < 0.3


def test_neighbours_are_inside_the_box_and_a_quarter_of_the_budget_away():
    x = torch.tensor([[0.0, 1.0, 0.5]])
    about = subject(nn.Linear(3, 2), [(x, torch.zeros(1, dtype=torch.int64))])
    for norm, order in (("linf", math.inf), ("l2", 2), ("l1", 1)):
        near = Neighbours(about, Threat(norm=norm, eps=0.2), 8)
        steps = torch.stack(list(near.steps()))
        sizes = torch.linalg.vector_norm(steps.flatten(1), order, dim=1)
        assert sizes.tolist() == pytest.approx([0.05] * 8)
        for points in (near.centre + steps, near.centre - steps):
            assert float(points.min()) >= -1e-7
            assert float(points.max()) <= 1 + 1e-7


def test_the_cosine_of_nothing_is_0():
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0], [math.nan, 0.0], [3.0, 4.0]])
    b = torch.tensor([[0.0, 2.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    assert cosines(a, b).tolist() == pytest.approx([0, 0, 0, 1])


def test_random_points_are_allowed_and_the_best_is_kept():
    """On a line the corners are the two ends: the better one is found in a few draws."""
    asked = context(lambda x: x - 0.9)
    about = asked.subject
    result = RandomSearch(threat=ONE, count=40)(about.model, about.x, about.y)
    assert ONE.contains(result.x_adv, about.x).all()
    assert torch.allclose(result.x_adv, about.x + 1)
    assert result.forwards.tolist() == [41] * 40
    l2 = Threat(norm="l2", eps=0.5)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(5, 3)
    few, many = (RandomSearch(threat=l2, count=count)(model, x, torch.zeros(6).long()) for count in (2, 60))
    assert l2.contains(many.x_adv, x).all()
    worth = [margin(model(found.x_adv), torch.zeros(6).long()) for found in (few, many)]
    assert (worth[1] >= worth[0]).all()


def test_a_black_box_that_beats_what_the_gradient_misses_is_told():
    """A step at 0.5: its gradient is that of the slope before it, which leads away."""
    steps = context(lambda x: torch.where(x > 0.5, x * 0 + 1, -1 - 0.1 * x), PGD(threat=ONE, steps=10, start="zero"))
    found = BlackBox().ask(steps)
    assert found.verdict == "fail"
    assert found.comparisons[0].won == 40
    assert found.next == Square(threat=ONE, queries=1000)
    assert BlackBox().ask(context(lambda x: x - 0.5)).verdict == "pass"


def test_a_random_network_is_told_and_judged_by_the_mean():
    """Noise that changes the answer of a tenth of the passes hides nothing: the mean answer is the right one."""
    asked = context(lambda x: x - 2 + 4 * (torch.rand_like(x) < 0.1), PGD(threat=Threat(eps=0.1, box=None), steps=3))
    assert asked.random
    assert asked.correct.all()
    found = Randomness().ask(asked)
    assert found.verdict == "warn"
    assert found.figures["changed_verdicts"] > 0.1
    assert found.next == EoT(attack=PGD(threat=Threat(eps=0.1, box=None), steps=3, loss="margin"))
    assert Randomness().ask(context(wave)).figures == {"spread": 0, "changed_verdicts": 0}


def test_an_attack_that_averages_well_is_not_told_to_run_itself():
    attack = EoT(attack=PGD(threat=Threat(eps=0.1, box=None), steps=3, loss="margin"), draws=5)
    found = Randomness().ask(context(lambda x: x - 2 + 4 * (torch.rand_like(x) < 0.1), attack))
    assert found.verdict == "pass"
    assert found.next is None
    assert averaged(context(wave, attack)) == replace(attack, draws=20)


def mine(logits, y):
    """A loss of the user's."""
    return 2 * margin(logits, y)


def test_more_draws_are_made_wherever_the_averaging_stands():
    noisy, inner = (lambda x: x - 2 + torch.rand_like(x)), PGD(threat=ONE, steps=3, loss=mine)
    few, one = EoT(attack=inner, draws=2), EoT(attack=inner, draws=1)
    most = EoT(attack=inner, draws=30)
    cases = {
        few: EoT(attack=inner, draws=20),
        one: EoT(attack=inner, draws=20),
        most: EoT(attack=inner, draws=120),
        BPDA(attack=few): BPDA(attack=EoT(attack=inner, draws=20)),
        EoT(attack=BPDA(attack=one), draws=9): EoT(attack=BPDA(attack=EoT(attack=inner, draws=20)), draws=36),
    }
    for attack, wanted in cases.items():
        asked = context(noisy, attack)
        more = averaged(asked)
        assert more == wanted
        about = asked.subject
        spent = [a(about.model, about.x, about.y).backwards for a in (attack, more)]
        assert spent[0].tolist() == [3 * innermost(attack).draws] * 40
        assert spent[1].tolist() == [3 * innermost(more).draws] * 40


def innermost(attack):
    """The EoT that stands next to the attack at the core."""
    while not (isinstance(attack, EoT) and attack.attack is attack.innermost):
        attack = attack.attack
    return attack


def test_what_a_transfer_attack_averages_are_its_surrogates_draws():
    attack = Transfer(attack=EoT(attack=PGD(threat=ONE, loss=mine), draws=3), surrogate=Margin(wave))
    assert averaged(context(wave, attack)) == EoT(attack=attack)


def test_averaging_climbs_the_margin_only_where_the_user_chose_no_loss():
    for loss in (mine, "dlr", "cross_entropy"):
        attack = PGD(threat=ONE, steps=3, loss=loss)
        assert averaged(context(wave, attack)) == EoT(attack=attack)
    assert averaged(context(wave, PGD(threat=ONE))) == EoT(attack=PGD(threat=ONE, loss="margin"))
    climbing = BPDA(attack=PGD(threat=ONE, loss="margin"))
    assert averaged(context(wave, BPDA(attack=PGD(threat=ONE)))) == EoT(attack=climbing)
    many = AutoAttack(threat=ONE, version="rand")
    assert averaged(context(wave, many)) == replace(many, draws=80)


def test_no_black_box_is_proposed_with_fewer_queries_than_were_spent():
    assert black_box(context(wave, queries=50), more=2) == Square(threat=ONE, queries=100)
    for attack in (Square(threat=ONE, queries=700), BPDA(attack=Square(threat=ONE, queries=700))):
        assert black_box(context(wave, attack, queries=50), more=2) == Square(threat=ONE, queries=1400)
    assert black_box(context(wave, Square(threat=ONE, queries=700), queries=5000)).queries == 5000


def test_another_attack_that_beats_less_tells_nothing():
    """FGSM leaps over the ditch at 0.3, PGD's many steps are led back; but PGD is not FGSM with more steps."""
    ditch = context(lambda x: torch.where(x > 0.3, x - 0.5, 0.1 - (x - 0.1).abs() - 1), FGSM(threat=ONE))
    assert not ditch.robust.any()
    found = Steps().ask(ditch)
    assert found.comparisons[1].stronger
    assert found.verdict == "pass"


def test_what_follows_gradients_follows_those_that_the_attack_replaces():
    """Rounding to fifths lets no gradient through; that of the identity is true on the whole, and leads anywhere."""

    class Fifths(nn.Module):
        def forward(self, x):
            return (5 * x).round() / 5

    model = nn.Sequential(Fifths(), Margin(lambda x: 3 * x - 2))
    x, attack = torch.linspace(-0.02, 0.02, 40)[:, None], PGD(threat=ONE, steps=5, start="zero")
    plain, adaptive = (
        context(model, one, x=x) for one in (attack, EoT(attack=BPDA(attack=attack, layers="0"), draws=1))
    )
    assert (plain.margin_gradients.grad == 0).all()
    assert (adaptive.margin_gradients.grad == 3).all()
    assert torch.equal(plain.margin_gradients.value, adaptive.margin_gradients.value)
    assert (plain.robust.all(), adaptive.robust.any()) == (True, False)
    step = OneStep().ask(adaptive)
    assert step.comparisons[0].challenger == "BPDA of FGSM"
    assert step.comparisons[0].standing == 0
    scale = run_check(Scale(), adaptive)
    assert (scale.verdict, scale.comparisons[0].standing) == ("pass", 0)
    wide = torch.linspace(-1, 1.4, 40)[:, None]  # of both answers
    plain, adaptive = (replace(one, subject=replace(one.subject, x=wide, _logits=None)) for one in (plain, adaptive))
    for check in (Gradients(), Agreement(), Roughness(), Unbounded()):
        assert run_check(check, plain).verdict in ("warn", "fail"), check.name
        assert run_check(check, adaptive).verdict == "pass", check.name
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


def test_what_replaces_gradients_is_all_that_goes_around_another_attack():
    core, inside = FGSM(threat=ONE), PGD(threat=ONE)
    first = BPDA(attack=inside, layers="a", backward=mine)
    assert through(inside, core) is core
    assert through(EoT(attack=first), core) == BPDA(attack=core, layers="a", backward=mine)
    assert through(BPDA(attack=first, layers="b"), core) == BPDA(attack=through(first, core), layers="b")
    assert through(Transfer(attack=first, surrogate=nn.Flatten()), core) is core


def test_effort_is_that_of_the_innermost_attack():
    inner = PGD(threat=ONE, steps=3, restarts=2, loss="margin")
    for attack in (EoT(attack=inner, draws=1), BPDA(attack=EoT(attack=inner, draws=1))):
        asked = context(wave, attack)
        assert Restarts().changes(asked) == {"restarts": 10}
        assert OtherLoss().changes(asked) == {"loss": "cross_entropy"}
        assert asked.steps == 3
    assert Restarts().changes(context(wave, AutoAttack(threat=ONE))) == {"restarts": 5}


def test_an_attack_that_cannot_try_harder_is_not_compared_with_itself():
    class Same(Steps):
        def changes(self, context):
            return {"steps": context.steps}

    found = Same().ask(context(wave, PGD(threat=ONE, steps=10)))
    assert found.verdict == "not run"
    assert "nothing more of that" in found.reason


def test_train_mode_is_tried_and_left():
    class Shy(nn.Module):
        def forward(self, x):
            value = x - 0.5 if self.training else torch.round(x * 4) / 4 - 0.5 + 1e-3
            return torch.cat([torch.zeros_like(value), value], 1)

    model = Shy().train()
    found = TrainMode().ask(context(model, PGD(threat=ONE, steps=5, start="zero")))
    assert found.verdict == "fail"
    assert found.comparisons[0].won == 40
    assert model.training


def test_what_does_not_apply_says_why():
    asked = context(lambda x: x.detach() - 1)
    assert run_check(Steps(), asked) == Result("not run", "The network has no gradient.")
    boundless = context(wave, Square(threat=ONE))
    boundless.attack = PGD(threat=Threat(eps=math.inf, box=None), step_size=0.1, start="zero")
    assert run_check(BlackBox(), boundless) == Result(
        "not run", "Square needs a finite eps or a box with finite ends; got eps inf and no box."
    )


def test_settings_reach_into_an_attack_that_holds_another():
    inner = PGD(threat=ONE, steps=3)
    assert varied(EoT(attack=inner, draws=4), {"steps": 9}, 3) == EoT(attack=PGD(threat=ONE, steps=9), draws=4)
    assert varied(FGSM(threat=ONE), {"restarts": 5}, 20) == PGD(threat=ONE, steps=20, restarts=5)


def test_what_pgd_takes_over_from_an_attack_without_such_settings():
    """The loss, and what is called and means the same: FMN's step size is no length, AutoAttack's 0 restarts not 0."""
    assert varied(FGSM(threat=ONE, loss=mine), {"steps": 9}, 20) == PGD(threat=ONE, steps=9, loss=mine)
    bim = BIM(threat=ONE, steps=7, step_size=0.2, loss=mine)
    assert varied(bim, {"restarts": 5}, 7) == PGD(threat=ONE, steps=7, step_size=0.2, restarts=5, loss=mine)
    assert varied(bim, {"steps": 30}, 7) == replace(bim, steps=30)
    tpgd = TPGD(threat=ONE, steps=4, restarts=3, step_size=0.1, start="zero")
    wanted = PGD(threat=ONE, steps=4, restarts=3, step_size=0.1, start="zero", loss="margin")
    assert varied(tpgd, {"loss": "margin"}, 4) == wanted
    l2 = Threat(norm="l2", eps=1.0)
    assert varied(FMN(threat=l2, steps=8), {"restarts": 5}, 8) == PGD(threat=l2, steps=8, restarts=5)
    assert varied(AutoAttack(threat=l2), {"loss": "margin"}, 100) == PGD(threat=l2, steps=100, loss="margin")
    assert varied(EoT(attack=bim), {"restarts": 2}, 7) == EoT(attack=varied(bim, {"restarts": 2}, 7))


def test_causes_are_named_before_consequences_and_the_largest_of_these():
    asked = context(lambda x: x - 0.5)
    asked.tolerated = 0.01
    won = asked.compare_robust(("all", torch.zeros(40, dtype=torch.bool)), ("none", torch.ones(40, dtype=torch.bool)))
    half = asked.compare_robust(("half", torch.arange(40) < 20), ("none", torch.ones(40, dtype=torch.bool)))
    first, second, third = (Square(threat=ONE, queries=q) for q in (1, 2, 3))
    consequences = [
        (Steps(), Result("fail", "Half.", {}, (half,), first)),
        (BlackBox(), Result("fail", "All.", {}, (won,), second)),
    ]
    assert overall_verdict(consequences, asked) == ("not trustworthy", "All. Half.", second)
    cause = (Roughness(), Result("warn", "Rough.", next=third))
    assert overall_verdict([*consequences, cause], asked) == ("not trustworthy", "Rough. All. Half.", third)
    assert overall_verdict([cause], asked) == ("suspect", "Rough.", third)
    fine = [(check, Result("pass", "")) for check in (Gradients(), Steps(), BlackBox())]
    assert overall_verdict(fine, asked) == ("trustworthy", "Nothing was found that PGD-10 overlooks.", None)


def test_what_few_inputs_leave_to_chance_is_told():
    """Three of 40 more are beaten: more than is tolerated, and no proof."""
    asked = context(lambda x: x - 0.5)
    asked.tolerated = 0.01
    pair = ("Square", torch.arange(40) >= 3), ("PGD-10", torch.ones(40, dtype=torch.bool))
    few = asked.compare_robust(*pair, effort=True)
    assert few.surplus == 3 / 40
    assert not few.stronger
    fine = [(check, Result("pass", "", {}, (few,))) for check in (Gradients(), Steps(), BlackBox())]
    verdict, why, proposal = overall_verdict(fine, asked)
    assert (verdict, proposal) == ("trustworthy", None)
    assert why.startswith(
        "Nothing was shown that PGD-10 overlooks; but Square succeeds on 7.5% more than PGD-10, which 40 "
    )


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(40, 256, [40]), (40, 16, [14, 13, 13]), (5, 2, [3, 2]), (4, 1, [2, 2]), (3, 1, [3])],
)
def test_train_mode_is_tried_in_batches_of_the_audits_size(count, batch_size, sizes):
    """BatchNorm, whose statistics hang on who is in the batch; two inputs at least, which it needs."""
    seen = []

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def forward(self, x):
            if self.training:
                seen.append(len(x))
            value = self.norm(x) - 3
            return torch.cat([torch.zeros_like(value), value], 1)

    x = torch.linspace(-0.02, 0.02, count)[:, None]
    asked = context(Norm(), PGD(threat=ONE, steps=2), x=x)
    asked.subject.batch_size = batch_size
    found = TrainMode().ask(asked)
    assert found.figures == {"batch_size": sizes[0]}
    assert seen == [size for size in sizes for _ in range(2)]


def test_trust_needs_a_check_of_each_kind():
    asked = context(lambda x: x - 2)
    ran, out = Result("pass", ""), Result("not run", "")
    sound, effort, blind = Gradients(), Steps(), BlackBox()
    assert overall_verdict([(sound, ran), (effort, ran), (blind, ran)], asked)[0] == "trustworthy"
    told = {
        "none of gradient health": (out, ran, ran),
        "none of more effort": (ran, out, ran),
        "none of gradient-free": (ran, ran, out),
        "none of gradient health and none of more effort and none of gradient-free": (out, out, out),
    }
    for what, results in told.items():
        answers = [*zip((sound, effort, blind), results, strict=True), (OneStep(), ran)]
        assert overall_verdict(answers, asked) == ("suspect", f"Too few checks ran: {what}.", None)
    odd = Result("fail", "Odd.")
    assert overall_verdict([(sound, out), (effort, odd), (blind, out)], asked)[0] == "not trustworthy"


def test_the_kinds_that_trust_needs():
    kinds = {check.name: check.kind for check in CHECKS if check.kind != "other"}
    assert kinds == {
        **dict.fromkeys(("gradients", "agreement", "roughness"), "gradient health"),
        **dict.fromkeys(("more steps", "more restarts", "other loss"), "more effort"),
        **dict.fromkeys(("random points", "black box"), "gradient-free"),
    }


def test_checks_that_could_not_run_are_counted_and_lower_the_verdict():
    """Square's own figure on a network without a gradient: nothing harder could be tried."""
    model = Margin(lambda x: x.detach() - 2)
    x = torch.linspace(-0.02, 0.02, 40)[:, None]
    audit = Masking(attack=Square(threat=ONE, queries=20), queries=20, draws=5)
    finding = audit(model, [(x, torch.zeros(40, dtype=torch.int64))])
    ran = [check for check in finding.data["checks"] if check["verdict"] != "not run"]
    assert finding.data["checks_run"] == len(ran) < len(CHECKS)
    assert (
        f"is suspect ({len(ran)} of {len(CHECKS)} checks ran). Too few checks ran: none of more effort"
        in finding.verdict
    )
