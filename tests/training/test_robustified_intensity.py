"""The monitor of the intensity: what it records is what one computes by hand, and training goes on as it would."""

import pytest
import torch

from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.base.defence import Batch
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.layers.example_gradients import example_gradients
from buttress.threat import Threat
from buttress.training.monitors import RobustifiedIntensity
from buttress.training.monitors.base import Moment
from buttress.training.monitors.probe import pgd

NAMES = {"gradient_norm", "adversarial_gradient_norm", "intensity", "intensity_p95", "intensity_mean"}
THREAT = Threat(eps=0.1)


def moment(model, data, batch, step, memory, threat=THREAT):
    figures = {}
    settings = {"per_epoch": 4, "epoch": 1, "epochs": 2, "seed": 3, "snapshot": dict}
    return Moment(
        model=model, data=data, batch=batch, threat=threat, step=step, figures=figures, memory=memory, **settings
    )


@pytest.fixture
def batch(images):
    x, y, ids = images.train.take(torch.arange(8))
    return Batch(x, y, ids)


def test_an_epoch_has_the_mean_of_its_measurements(network, images, batch):
    model, memory, monitor = network().eval(), {}, RobustifiedIntensity(every=2, steps=3)
    expected = []
    for step in range(1, 5):
        monitor.after_step(moment(model, images, batch, step, memory))
        if step % 2 == 0:
            now = moment(model, images, batch, step, {})
            x_adv = pgd(THREAT, 3)(model, batch.x, batch.y, task=now.task, seed=3, ids=batch.ids).x_adv
            norms = [example_gradients(model, x, batch.y, now.task, 3).norms.max() for x in (batch.x, x_adv)]
            expected.append(float(norms[1] / norms[0]))
            with torch.no_grad():
                next(model.parameters()).mul_(1.5)
    end = moment(model, images, batch, 4, memory)
    monitor.after_epoch(end)
    assert set(end.figures) == NAMES
    assert end.figures["intensity"] == pytest.approx(sum(expected) / 2)
    later = moment(model, images, batch, 5, memory)
    monitor.after_epoch(later)
    assert later.figures == {}


def test_it_is_in_the_history_and_changes_no_bit(network, images, train, attack, same):
    watched = train(network(), images, AdversarialTraining(attack=attack), monitors=[RobustifiedIntensity(every=1)])
    plain = train(network(), images, AdversarialTraining(attack=attack))
    same(watched.model.state_dict(), plain.model.state_dict())
    assert all(set(row) >= NAMES for row in watched.history)
    assert all(row["intensity"] > 0 for row in watched.history)
    assert watched.notes == []


def test_a_training_without_an_attack_records_its_own_norms(network, images, train):
    """As the released code does, whose ratio is formed of two runs."""
    rows = train(network(), images, Standard(), monitors=[RobustifiedIntensity(every=1)]).history
    assert all("gradient_norm" in row and "intensity" not in row for row in rows)
    own = RobustifiedIntensity(every=1, threat=THREAT)
    assert all("intensity" in row for row in train(network(), images, Standard(), monitors=[own]).history)


@pytest.mark.parametrize("settings", [{"every": 0}, {"steps": 0}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(UserError, match="must be a whole number"):
        RobustifiedIntensity(**settings)
