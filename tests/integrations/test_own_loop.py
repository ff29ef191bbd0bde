"""A defence in a loop of one's own trains as `fit` does, or says that it needs `fit`."""

import copy

import pytest
import torch

from buttress import defences, models, registry
from buttress.data.sets.moons import moons
from buttress.errors import UserError
from buttress.integrations import DefenceLoss
from buttress.threat import Threat
from buttress.training import Optimiser, Schedule, fit
from buttress.training.batches import Batches

DATA = moons(samples=60, test=12)
FREE = Threat(eps=0.1, box=None)


def by_fit(model, defence):
    settings = {"epochs": 2, "batch_size": 30, "keep": "last", "validate_with": "none", "seed": 3}
    optimiser = Optimiser(name="sgd", lr=0.05, momentum=0.0)
    return fit(model, DATA, defence, optimiser=optimiser, schedule=Schedule(name="constant"), **settings).model


def by_own_loop(model, defence):
    batches = Batches(DATA, 30, 3, torch.device("cpu"))
    objective = DefenceLoss(defence, model, epochs=2, steps_per_epoch=batches.per_epoch, data=DATA, seed=3)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.05)
    for epoch in range(2):
        for batch in batches.epoch(epoch):
            model.train()
            optimizer.zero_grad()
            objective(batch.x, batch.y, batch.ids).backward()
            optimizer.step()
    return model


def made(name):
    defence = registry.defence.get(name)
    layers = {"layers": ["act1"]} if name == "layer-regularised" else {}
    return defence(**layers).within(FREE)


def refusal(model, defence):
    """What is said where it is refused."""
    try:
        DefenceLoss(copy.deepcopy(defence), copy.deepcopy(model), epochs=2, steps_per_epoch=2, data=DATA, seed=3)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", registry.defence.names())
def test_every_defence_trains_as_in_fit_or_is_refused(name):
    torch.manual_seed(0)
    model, defence = models.create("mlp", hidden=(8, 8), seed=0), made(name)
    other = copy.deepcopy(model)
    if told := refusal(model, defence):
        assert told.endswith(": train with buttress.fit")
        return
    found = by_own_loop(model, copy.deepcopy(defence))
    expected = by_fit(other, defence).state_dict()
    assert all(value.equal(expected[key]) for key, value in found.state_dict().items())


def test_some_of_each_kind_are_served_and_refused():
    model = models.create("mlp", seed=0)
    how = {"epochs": 1, "steps_per_epoch": 1}
    for served in (defences.TRADES(), defences.AdversarialTraining(), defences.Standard()):
        DefenceLoss(served, model, **how)
    with pytest.raises(
        UserError, match=r"awp\(at\) is more than a loss \(several updates a batch\): train with buttress"
    ):
        DefenceLoss(defences.AWP(), model, **how)
    with pytest.raises(UserError, match=r"layer-regularised\(at\) looks at the data before training: give data="):
        DefenceLoss(defences.LayerRegularised(layers=["act1"]), model, **how)
    with pytest.raises(UserError, match="steps_per_epoch must be a whole number of 1 or more; got 0"):
        DefenceLoss(defences.Standard(), model, epochs=1, steps_per_epoch=0)


def test_the_figures_of_the_method_are_kept():
    objective = DefenceLoss(defences.TRADES(threat=FREE), models.create("mlp", seed=0), epochs=1, steps_per_epoch=2)
    x, y, ids = DATA.train.take(torch.arange(10))
    assert objective(x, y).ndim == 0
    assert objective.figures is objective.whole.logs
    assert objective(x, y, ids).isfinite()


def test_a_loop_that_goes_on_goes_on_at_its_step():
    x, y, ids = DATA.train.take(torch.arange(10))
    how = {"epochs": 2, "steps_per_epoch": 2}
    objective = DefenceLoss(defences.TRADES(threat=FREE), models.create("mlp", seed=0), **how)
    objective(x, y, ids)
    other = DefenceLoss(defences.TRADES(threat=FREE), models.create("mlp", seed=1), **how)
    other.load_state_dict(objective.state_dict())
    assert other.step == 1
    assert other(x, y, ids).equal(objective(x, y, ids))


def test_a_training_that_ends_before_the_method_has_risen_is_refused():
    slow = defences.EpsWarmup(base=defences.AdversarialTraining(), epochs=4)
    with pytest.raises(UserError, match=r"eps-warmup\(at\): epochs 4 is longer than the training, which ends after 2"):
        DefenceLoss(slow, models.create("mlp", seed=0), epochs=2, steps_per_epoch=2, data=DATA)
