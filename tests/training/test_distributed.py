"""Two processes that share each batch train one network."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import forked
from torch import nn

from buttress import fit, models
from buttress.attacks.gradient.pgd import PGD
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.threat import Threat
from buttress.training import SWA, Optimiser, load
from buttress.training.monitors import CatastrophicOverfitting, EarlyStopping


def normed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def train_together(folder):
    """In each of two processes."""
    data, rank = moons(samples=60, val=20, test=4), os.environ["RANK"]
    attack = PGD(threat=Threat(eps=0.1, box=None), steps=2)

    def trained(model, defence, name, **options):
        sgd = Optimiser(name="sgd", lr=0.05)
        how = {"epochs": 2, "batch_size": 12, "seed": 3, "devices": 2, "validate_with": attack, "optimiser": sgd}
        save_file(fit(model, data, defence, **how, **options).model.state_dict(), folder / f"{name}-{rank}.safetensors")

    trained(models.create("mlp", hidden=[8], seed=0), Standard(), "standard", keep="last", out=folder / "run")
    regularised = LayerRegularised(AdversarialTraining(attack), layers=["2"], gamma=0.5)
    trained(normed(), regularised, "norm", average=0.5)
    monitors = [CatastrophicOverfitting(every=2, then="rollback", fall=0.001), EarlyStopping(patience=1)]
    trained(normed(), AdversarialTraining(attack), "watched", average=SWA(start=0.5), monitors=monitors)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Where two processes have left what they trained."""
    folder = tmp_path_factory.mktemp("two")
    forked.run_twice(train_together, folder)
    return folder


@pytest.mark.parametrize("name", ["standard", "norm", "watched"])
def test_both_processes_end_with_the_same_bits(name, both, same):
    same(*(load_file(both / f"{name}-{rank}.safetensors") for rank in (0, 1)))


def test_two_processes_train_as_one_does(both, mlp, points, train):
    """Their gradients are means over halves of a batch; the order of summation is all that differs."""

    options = {"epochs": 2, "optimiser": Optimiser(name="sgd", lr=0.05), "keep": "last"}
    alone = train(mlp(), points, Standard(), **options).model
    torch.testing.assert_close(load_file(both / "standard-0.safetensors"), dict(alone.state_dict()))


def test_one_process_writes_the_run(both, same):
    same(dict(load(both / "run").state_dict()), load_file(both / "standard-0.safetensors"))
    assert len((both / "run" / "metrics.csv").read_text().splitlines()) == 3
