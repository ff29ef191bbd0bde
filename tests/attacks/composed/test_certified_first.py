"""What is certified is not attacked, and the verdicts are the same."""

import pytest
import torch
from tests.certificates import zoo

from buttress.attacks import PGD, AutoAttack, CertifiedFirst
from buttress.certificates import CROWN, Verifier, certify
from buttress.errors import UserError
from buttress.threat import Threat


def problem(count=40):
    """A small network and inputs of which some can be certified."""
    model = zoo.network("relu")
    x = torch.rand(count, *zoo.SHAPE, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    y[:3] = (y[:3] + 1) % zoo.CLASSES
    return model, x, y


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", ["pgd", "autoattack"])
def test_verdicts_are_those_of_the_attack_alone(kind, norm):
    model, x, y = problem()
    threat = Threat(norm=norm, eps={"linf": 0.03, "l2": 0.2}[norm])
    if kind == "pgd":
        attack = PGD(threat=threat, steps=10)
        first = CertifiedFirst(attack=attack)
    else:
        settings = {"threat": threat, "steps": 5, "queries": 30, "targets": 2}
        attack, first = AutoAttack(**settings), AutoAttack(**settings, verifier=CROWN())
    plain, spared = attack(model, x, y, search="first"), first(model, x, y, search="first")
    verified = certify(model, x, y, threat=threat).verified
    assert 0 < verified.sum() < len(x) - 3
    assert torch.equal(plain.success, spared.success)
    stage = spared.stages[0]
    assert (stage.name, stage.entered, stage.successes) == ("certified by crown", int(verified.sum()), 0)
    assert (spared.backwards[verified] == 0).all()
    torch.testing.assert_close(spared.x_adv[verified], x[verified])
    assert spared.backwards.sum() < plain.backwards.sum()
    if kind == "autoattack":
        assert first.label() == "AutoAttack (standard, 5 steps, 30 queries, 2 targets, certified by crown first)"


def test_only_what_is_certain_and_only_in_eval_mode():
    class Likely(Verifier):
        sound = False

        def bound(self, problem):
            raise AssertionError("not asked")

    model, x, y = problem(4)
    with pytest.raises(UserError, match="take a sound verifier"):
        CertifiedFirst(verifier=Likely())(model, x, y)
    with pytest.raises(UserError, match="without a verifier"):
        CertifiedFirst()(model, x, y, mode="train")
    with pytest.raises(UserError, match="without a verifier"):
        AutoAttack(verifier=CROWN(), parts="square", queries=2)(lambda inputs: model(inputs), x, y)


def test_settings_make_a_fingerprint():
    threat = Threat(eps=0.03)
    assert CertifiedFirst(attack=PGD(threat=threat)).fingerprint() != PGD(threat=threat).fingerprint()
    assert AutoAttack(threat=threat).fingerprint() != AutoAttack(threat=threat, verifier=CROWN()).fingerprint()
