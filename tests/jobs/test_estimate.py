import pytest
import torch

from buttress.attacks.gradient.fgsm import FGSM
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.jobs.estimate import _duration, estimate_attacks, estimate_training
from buttress.jobs.settings import Training
from buttress.threat import Threat
from buttress.training.monitors.base import Action, Monitor

FREE = Threat(box=None)


class Ends(Monitor):
    """Stops the training after its first step."""

    def after_step(self, moment):
        return Action("stop", "this monitor ends everything")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "1 s"), (59.6, "60 s"), (89, "89 s"), (150, "2 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_durations_in_units_that_suit_them(seconds, text):
    assert _duration(seconds) == text


def test_steps_are_counted_and_nothing_is_changed(nets):
    model = nets.awkward(2, classes=2)
    before = nets.state(model)
    text = estimate_training(
        model, moons(samples=60), AdversarialTraining(attack=FGSM(threat=FREE)), Training(epochs=3, batch_size=20)
    )
    nets.assert_state(model, before)
    assert text.startswith("about 1 s: 9 steps of 0.")


def test_only_the_second_step_is_timed(nets, monkeypatch):
    """A clock that advances by 1 s at each look, at which the first step and what goes before it make no difference."""
    looks = iter(range(10**6))
    monkeypatch.setattr("buttress.jobs.estimate.time.perf_counter", lambda: float(next(looks)))
    text = estimate_training(
        nets.awkward(2, classes=2), moons(samples=60), Standard(), Training(epochs=2, batch_size=60)
    )
    assert text == "about 2 s: 2 steps of 1 s, validation not counted"


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


def test_the_time_of_a_batch_is_scaled_to_all_attacks_and_inputs(nets, monkeypatch):
    """A clock that advances by 2 s at each look: every attack takes 2 s for its batch of 10."""
    looks = iter(range(0, 1000, 2))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(looks)))
    split = moons(samples=60, test=40).test
    text = estimate_attacks(nets.linear(torch.eye(2)), split, [FGSM(threat=FREE)] * 3, batch_size=10)
    assert text.startswith("at most about 24 s for 3 attacks on 40 inputs")
