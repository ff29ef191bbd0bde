"""What every attack offers to those who run it: its threat filled in, its settings, the attack inside, a label."""

import math

import pytest
import torch
from torch import nn

from buttress.attacks.composed.autoattack import AutoAttack
from buttress.attacks.composed.eot import EoT
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.composed.variant import Variant
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.apgd import APGD
from buttress.attacks.gradient.fgsm_rs import FGSMRS
from buttress.attacks.gradient.n_fgsm import NFGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.gradient.universal import Universal
from buttress.attacks.minimum_norm.cw import CW
from buttress.attacks.minimum_norm.ddn import DDN
from buttress.engine.fingerprint import plain
from buttress.errors import UserError
from buttress.threat import Threat

SMALL = Threat(eps=0.1)


@pytest.fixture
def linear():
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, -0.5]]))
    return model


def test_a_call_fills_in_the_default_threat(linear):
    x, y = torch.full((2, 3), 0.5), torch.zeros(2, dtype=torch.int64)
    for attack in (PGD(steps=3), EoT(attack=PGD(steps=3), draws=1)):
        result = attack(linear, x, y)
        torch.testing.assert_close(result.distance, torch.full((2,), 8 / 255).double(), rtol=1e-6, atol=0)
        assert torch.equal(attack.craft(linear, x, y), result.x_adv)
    assert torch.equal(PGD(steps=3)(linear, x, y).x_adv, PGD(threat=Threat(), steps=3)(linear, x, y).x_adv)


def test_a_method_has_a_default_of_its_own():
    assert CW().within() == CW(threat=Threat(norm="l2", eps=math.inf))
    assert EoT(attack=CW()).within().threat == CW.default_threat
    attack = PGD(threat=SMALL)
    assert attack.within() is attack


@pytest.mark.parametrize(
    ("attack", "threat", "message"),
    [
        (CW(), Threat(norm="l1"), "CW is defined in l2; got l1"),
        (FGSMRS(), Threat(norm="l2", eps=math.inf), "needs a finite eps; got inf"),
        (NFGSM(), Threat(norm="l2"), "n-fgsm is defined in linf; got l2"),
        (DDN(levels=256), Threat(norm="l2", eps=1.0, box=None), "levels divide the box, and there is none"),
        (AutoAttack(), Threat(norm="l2", eps=math.inf, box=None), "AutoAttack needs a finite eps or a box"),
        (EoT(attack=CW()), Threat(norm="l1"), "CW is defined in l2; got l1"),
    ],
)
def test_a_threat_is_checked_once_it_is_known(attack, threat, message):
    with pytest.raises(UserError, match=message):
        attack.within(threat)


def test_a_fingerprint_is_that_of_the_attack_as_it_runs():
    assert PGD().fingerprint() == PGD(threat=Threat()).fingerprint() != PGD(threat=SMALL).fingerprint()
    assert EoT(attack=CW()).fingerprint() == EoT(attack=CW(threat=CW.default_threat)).fingerprint()


def test_a_fingerprint_names_our_own_classes_without_their_file():
    assert plain(PGD(threat=SMALL))["class"] == "buttress.PGD"
    assert plain(nn.CrossEntropyLoss) == "torch.nn.modules.loss.CrossEntropyLoss"


def test_settings_are_those_of_the_innermost_attack():
    attack = EoT(attack=Variant(attack=PGD(threat=SMALL, steps=7), variant="fine"), draws=3)
    assert (attack.inner.variant, attack.inner.inner.steps, attack.inner.inner.inner) == ("fine", 7, None)
    assert attack.innermost == PGD(threat=SMALL, steps=7)
    assert attack.innermost.settings()["steps"] == 7
    varied = attack.varied(steps=9, threat=Threat(eps=0.2))
    assert varied == EoT(attack=Variant(attack=PGD(threat=Threat(eps=0.2), steps=9), variant="fine"), draws=3)
    assert varied.threat.eps == 0.2
    assert attack.with_innermost(CW()) == EoT(attack=Variant(attack=CW(), variant="fine"), draws=3)


def test_a_wrapper_depends_on_the_batch_where_the_attack_inside_does():
    assert EoT().by_input
    assert not EoT(attack=Universal()).by_input


@pytest.mark.parametrize(
    ("attack", "label"),
    [
        (PGD(steps=40, restarts=5), "PGD-40 x 5"),
        (PGD(steps=20, loss="margin"), "PGD-20 (margin)"),
        (PGD(loss="cross_entropy"), "PGD-10"),
        (APGD(loss="dlr", targets=9), "APGD-100 (dlr, 9 targets)"),
        (EoT(attack=PGD(steps=20)), "EoT of PGD-20"),
        (Variant(attack=PGD(), variant="fine"), "Variant 'fine' of PGD-10"),
        (Transfer(attack=CW(), surrogate=nn.Identity()), "Transfer of CW-1000"),
        (AutoAttack(threat=SMALL), "AutoAttack (standard)"),
        (AutoAttack(version="rand", steps=20, parts=("apgd-ce", "fab")), "AutoAttack (rand, apgd-ce + fab, 20 steps)"),
        (Gaussian(), "gaussian"),
    ],
)
def test_labels(attack, label):
    assert attack.label() == label
