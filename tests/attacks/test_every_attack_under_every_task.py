"""Every registered attack and noise under every registered task: it does its work, or it refuses by name."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from buttress import registry, tasks
from buttress.attacks import APGD, CW, DDN, FMN, PGD, Attack, AutoAttack, BoundaryAttack, Square
from buttress.errors import UserError
from buttress.threat import Threat

TASKS = {
    **{name: registry.task.get(name)() for name in registry.task.names()},
    "multi-label, all wrong": tasks.MultiLabel(wrong="all"),
    "ordinal, exact": tasks.Ordinal(tolerance=0),
}
CHEAP = {"steps": 3, "queries": 6, "draws": 2, "search_steps": 2, "samples": 2, "population": 4}
FREE = Threat(norm="l2", eps=float("inf"))


def small(name, surrogate):
    """The member with cheap settings, in linf, or in l2 where it is not defined there."""
    member = registry.attack.get(name)
    known = {field.name for field in dataclasses.fields(member)}

    def within(threat):
        wanted = {"threat": threat, "surrogate": surrogate, "attack": PGD(threat=threat, steps=3), **CHEAP}
        return member(**{key: value for key, value in wanted.items() if key in known})

    try:
        return within(Threat(eps=3.0))
    except UserError:
        return within(Threat(norm="l2", eps=3.0))


def case(nets, task):
    """A steep network, inputs and the truth, which is what it says."""
    weight = torch.randn(4, 36, generator=torch.Generator().manual_seed(0))
    model = nets.linear(weight, -0.5 * weight.sum(1)) if task.label() != "denoising" else nn.Identity()
    x = 0.3 + 0.4 * torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return model, x, task.decision(task.read(model(x))).detach()


@pytest.mark.representatives(which=["multi-label", "regression"])
@pytest.mark.parametrize("which", TASKS)
@pytest.mark.parametrize("name", registry.attack.names())
def test_it_works_or_names_itself_and_what_to_use(nets, name, which):
    task = TASKS[which]
    model, x, y = case(nets, task)
    attack = small(name, model)
    if attack.needs_classes and not task.classes:
        for call in (attack, attack.craft):
            said = f"^{re.escape(attack.label())} needs classes, which {task.label()} has not: use .+$"
            with pytest.raises(UserError, match=said):
                call(model, x, y, task=task)
        return
    result = attack(model, x, y, task=task)
    assert torch.equal(result.success, task.is_adversarial(task.read(model(result.x_adv)), y))
    assert result.loss.shape == (4,)
    if isinstance(attack, Attack):
        assert attack.threat.contains(result.x_adv, x).all()
    torch.testing.assert_close(attack.craft(model, x, y, task=task), result.x_adv, rtol=0, atol=0)


@pytest.mark.parametrize("which", ["multi-label", "multi-label, all wrong", "regression", "ordinal"])
@pytest.mark.parametrize(
    "attack",
    [
        PGD(threat=Threat(eps=0.4)),
        APGD(threat=Threat(eps=0.4), steps=20),
        Square(threat=Threat(eps=0.4), queries=300),
        CW(threat=FREE, steps=50, lr=0.1),
        DDN(threat=FREE, steps=50),
        FMN(threat=FREE, steps=50),
        BoundaryAttack(threat=FREE, queries=200),
    ],
    ids=lambda attack: attack.label(),
)
def test_those_of_each_family_succeed(nets, attack, which):
    model, x, y = case(nets, TASKS[which])
    assert attack(model, x, y, task=TASKS[which], search="first").success.float().mean() >= 0.75


def test_what_is_inside_of_a_wrapper_is_asked_too(nets):
    model, x, y = case(nets, tasks.MultiLabel())
    wrapped = registry.attack.get("eot")(attack=registry.attack.get("fab")(steps=2), draws=2)
    with pytest.raises(UserError, match=r"^FAB-2 needs classes, which multi-label has not: use pgd,"):
        wrapped(model, x, y, task=tasks.MultiLabel())


@pytest.mark.parametrize("loss", ["dlr", "cross_entropy", "negative_logit"])
def test_a_loss_of_classes_is_refused_with_those_of_the_task(nets, loss):
    model, x, y = case(nets, tasks.MultiLabel())
    line = f"the loss '{loss}' needs classes, which multi-label has not: use margin, binary_cross_entropy, kl"
    with pytest.raises(UserError, match=rf"^PGD-10.*: {line}$"):
        PGD(loss=loss)(model, x, y, task=tasks.MultiLabel())


def test_square_alone_is_an_autoattack_for_any_task(nets):
    model, x, y = case(nets, tasks.MultiLabel())
    part = AutoAttack(threat=Threat(eps=0.4), parts="square", queries=200)
    assert part(model, x, y, task=tasks.MultiLabel()).success.any()


def test_targets_that_are_classes_are_refused(nets):
    model, x, y = case(nets, tasks.MultiLabel())
    with pytest.raises(UserError, match=r"^APGD-100 \(2 targets\) needs classes, .*: use targets=0$"):
        APGD(targets=2)(model, x, y, task=tasks.MultiLabel())
    with pytest.raises(UserError, match=r"^target='random' chooses classes, which multi-label has not: use a tensor$"):
        PGD()(model, x, y, task=tasks.MultiLabel(), target="random")


@pytest.mark.parametrize(
    ("which", "loss"),
    [(which, None) for which in ("multi-label", "multi-label, all wrong", "regression", "ordinal")]
    + [(which, "margin") for which in ("multi-label", "multi-label, all wrong", "ordinal")],
)
def test_it_is_led_to_a_target(nets, which, loss):
    """The others' truth; none of them has it already."""
    task = TASKS[which]
    model, x, y = case(nets, task)
    target = y.roll(1, 0)
    assert not task.is_adversarial(task.read(model(x)), y, target).any()
    attack = PGD(threat=Threat(eps=1.0), steps=100, step_size=0.02, loss=loss)
    result = attack(model, x, y, task=task, target=target, search="first")
    assert torch.equal(result.success, task.is_adversarial(task.read(model(result.x_adv)), y, target))
    assert result.success.any()


@pytest.mark.parametrize("which", ["classification", "multi-label", "regression", "denoising", "ordinal"])
def test_one_target_for_all_is_that_of_each(nets, which):
    """A row of the truth, also as a list; as many inputs as a row has entries do not make it ambiguous."""
    task = TASKS[which]
    model, x, y = case(nets, task)
    row = y[1]
    attack = PGD(threat=Threat(eps=1.0), steps=3)
    each = attack(model, x, y, task=task, target=torch.stack([row] * len(x)))
    for one in (row, row.tolist()):
        assert torch.equal(attack(model, x, y, task=task, target=one).x_adv, each.x_adv)
