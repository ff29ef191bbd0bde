"""Crafting on copies of the model whose weights are filled again: a copy, all steps, the same training."""

import copy
import math

import pytest
import torch
from torch import nn

from buttress.defences.adversarial_training import AdversarialTraining
from buttress.engine.twin import Twin
from buttress.errors import UserError


@pytest.fixture
def folding(nets):
    """A convolution and its BatchNorm, without dropout."""

    def build():
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 4)
        )

    return lambda: nets.seeded(build)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_on_a_folded_copy_the_training_is_that_on_the_model_itself(folding, images, attack, train, monkeypatch):
    made = []
    build = Twin.__init__
    monkeypatch.setattr(
        Twin, "__init__", lambda self, *args, **options: made.append(1) or build(self, *args, **options)
    )
    models = {}
    for precision in ("fp32", "folded", "twin"):
        model = folding()
        models[precision] = train(model, images, AdversarialTraining(attack=attack), search_precision=precision).model
        assert all(math.isfinite(p.detach().sum().item()) for p in model.parameters())
    assert len(made) == 2  # one copy each, whatever the number of steps
    start = folding()
    moved = (weights(models["fp32"]) - weights(start)).norm()
    off = {name: ((weights(models[name]) - weights(models["fp32"])).norm() / moved).item() for name in models}
    assert off["folded"] < 0.05
    assert off["twin"] < 0.5


def test_crafting_in_train_mode_uses_the_model_itself(folding, images, attack, train, same):
    runs = []
    for precision in ("fp32", "folded"):
        model = folding()
        defence = AdversarialTraining(attack=attack, mode="train")
        runs.append(train(copy.deepcopy(model), images, defence, search_precision=precision).model.state_dict())
    same(*runs)


def test_a_precision_that_is_none_is_named(folding, images, train):
    with pytest.raises(UserError, match="search_precision must be one of fp32, bf16, folded, twin; got 'auto'"):
        train(folding(), images, search_precision="auto")
