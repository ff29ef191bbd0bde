import dataclasses
import re

import pytest
import torch

from buttress import registry
from buttress.attacks import Attack
from buttress.attacks.composed.autoattack import AutoAttack
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import Audit, Finding
from buttress.audits.robustness import Robustness
from buttress.audits.weights import Weights
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.jobs.estimate import estimate_attacks, estimate_audits, estimate_training
from buttress.jobs.settings import Training
from buttress.threat import Threat
from buttress.training.monitors.base import Action, Monitor

FREE = Threat(box=None)


class Ends(Monitor):
    """Stops the training after its first step."""

    def after_step(self, moment):
        return Action("stop", "this monitor ends everything")


def test_steps_are_counted_and_nothing_is_changed(nets):
    model = nets.awkward(2, classes=2)
    before = nets.state(model)
    text = estimate_training(
        model, moons(samples=60), AdversarialTraining(attack=FGSM(threat=FREE)), Training(epochs=3, batch_size=20)
    )
    nets.assert_state(model, before)
    assert text.startswith("about 1 s: 9 steps of 0.")


def test_only_the_second_step_is_timed(nets, monkeypatch):
    """A clock that advances at each look, at which the first step and what goes before it make no difference."""
    clock(monkeypatch, 1 / 16)
    text = estimate_training(
        nets.awkward(2, classes=2), moons(samples=60), Standard(), Training(epochs=2, batch_size=60)
    )
    assert text == "about 1 s: 2 steps of 0.0625 s, validation not counted"


def test_of_a_batch_that_takes_long_a_part_is_timed(monkeypatch):
    """A clock of 1 s a call: the whole batch takes as many seconds as it has parts, and is never run."""
    now, sizes = 0.0, set()

    class Ticking(torch.nn.Module):
        def forward(self, x):
            nonlocal now
            now += 1.0
            sizes.add(len(x))
            return 1.0 * x

    monkeypatch.setattr("time.perf_counter", lambda: now)
    split = moons(samples=60, test=160).test
    text = estimate_attacks(Ticking(), split, [FGSM(threat=FREE)], batch_size=160)
    assert text.startswith("at most about 30 s of passes for 1 attack on 160 inputs")  # 3 forwards of 160/16 s
    assert sizes == {16}


@pytest.mark.parametrize(("devices", "told"), [(1, " s, validation"), (2, " s on one device, validation")])
def test_one_step_is_estimated_from_two(nets, devices, told):
    training = Training(epochs=1, batch_size=60, devices=devices)
    text = estimate_training(nets.awkward(2, classes=2), moons(samples=60), Standard(), training)
    assert ": 1 steps of " in text
    assert told in text


def test_what_the_training_refuses_its_estimate_refuses(nets):
    with pytest.raises(UserError, match="epochs must be a whole number of 1 or more; got 0"):
        estimate_training(nets.awkward(2, classes=2), moons(samples=60), Standard(), Training(epochs=0))


def test_a_training_that_a_monitor_ends_at_once_is_not_estimated(nets):
    training = Training(epochs=3, batch_size=60, monitors=[Ends()])
    text = estimate_training(nets.awkward(2, classes=2), moons(samples=60), Standard(), training)
    assert text == "not estimated, since the training ends before its second step"


def clock(monkeypatch, advance=1.0):
    """A clock that advances by as much at each look."""
    looks = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: advance * next(looks))


def test_a_few_passes_are_timed_and_multiplied_by_those_that_each_attack_states(nets, monkeypatch):
    """2 s a forward pass of 10 of the 40 inputs, and none for a backward: FGSM makes 3, its own, clean and verdict."""
    clock(monkeypatch, 2.0)
    split = moons(samples=60, test=40).test
    text = estimate_attacks(nets.linear(torch.eye(2)), split, [FGSM(threat=FREE)] * 3, batch_size=10)
    assert text.startswith(
        "at most about 72 s of passes for 3 attacks (FGSM 3 times) on 40 inputs, if all are robust: "
        "9 forward and 3 backward"
    )


class Slow(torch.nn.Module):
    """A network that would take hours in an AutoAttack, and counts its calls."""

    calls = 0

    def forward(self, x):
        Slow.calls += 1
        assert Slow.calls < 30
        return 1.0 * x


@pytest.mark.parametrize("name", registry.attack.names())
def test_no_attack_is_run_for_its_estimate(name, monkeypatch, nets):
    member = registry.attack.get(name)
    known = {field.name for field in dataclasses.fields(member)}
    attack = member(**({"surrogate": nets.linear(torch.eye(2))} if "surrogate" in known else {}))
    monkeypatch.setattr(Slow, "calls", 0)
    text = estimate_attacks(Slow(), moons(samples=60, test=40).test, [attack] * 5, batch_size=40)
    assert "not counted, which does not state" not in text
    assert text.startswith("at most about ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Silent(Attack):
    """A user's own."""

    threat: Threat = FREE

    def perturb(self, oracle, x, y, random):
        return x


def test_what_states_no_passes_is_told(nets):
    split = moons(samples=60, test=40).test
    text = estimate_attacks(nets.linear(torch.eye(2)), split, [Silent(), FGSM(threat=FREE)], batch_size=40)
    assert "3 forward and 1 backward passes an input, and what attacks compute between passes not counted; " in text
    assert "; Silent not counted, which does not state its passes" in text


@dataclasses.dataclass(frozen=True)
class Quiet(Audit):
    """A user's own, which does not say how many passes it makes."""

    def ask(self, subject):
        return Finding("quiet", "", "", "info", {})


def test_what_is_not_counted_stands_beside_what_is(nets):
    split = moons(samples=60, test=40).test
    robustness = Robustness(attacks=[FGSM(threat=FREE)], eps=[FREE.eps])
    text = estimate_audits(nets.linear(torch.eye(2)), split, [Quiet(), robustness, Weights()], batch_size=40)
    assert text.startswith("about 1 s for 2 audits, cheapest first: weights 1 s, robustness 1 s (timed passes of ")
    assert ", every input taken to resist, " in text
    assert re.search(r"; not known: Quiet, which do not say how many passes they make$", text)


def test_a_training_whose_attack_takes_long_is_not_tried(monkeypatch):
    """10 s a pass at this clock: AutoAttack would take hours for the first batch."""
    clock(monkeypatch, 10.0)
    monkeypatch.setattr(Slow, "calls", 0)
    defence = AdversarialTraining(attack=AutoAttack(threat=FREE))
    data = moons(samples=60)
    text = estimate_training(Slow(), data, defence, Training(epochs=3, batch_size=20))
    assert text.startswith("about ")
    assert re.search(r": 9 steps whose passes take up to \S+ s, the rest not counted$", text)


def test_an_estimate_is_at_least_what_a_run_counts(nets):
    """Of a network that nothing moves, it is what the run counts."""
    split = moons(samples=60, test=40).test
    model = nets.linear(torch.tensor([[0.001, 0.0], [0.0, 0.001]]), torch.tensor([9.0, 0.0]))
    zeros = torch.zeros(len(split), dtype=torch.int64)
    attacks = [PGD(threat=FREE, steps=3, restarts=2), AutoAttack(threat=FREE, steps=3, queries=5, parts="apgd-ce")]
    spent = [attack(model, split.x, zeros, search="first") for attack in attacks]
    forwards, backwards = (sum(int(getattr(r, n).max()) for r in spent) for n in ("forwards", "backwards"))
    text = estimate_attacks(model, split, attacks, batch_size=40)
    assert f": {forwards} forward and {backwards} backward passes an input" in text
