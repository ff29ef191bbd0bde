"""Two processes that share each batch train one network."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from buttress.defences.standard import Standard
from buttress.training import Optimiser, load

SCRIPT = """
import os, sys, warnings
import torch
from torch import nn
from safetensors.torch import save_file
from buttress import Optimiser, Threat, fit, models
from buttress.attacks.gradient.pgd import PGD
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.training import SWA
from buttress.training.monitors import CatastrophicOverfitting, EarlyStopping

torch.set_num_threads(1)
folder, rank = sys.argv[1], os.environ["RANK"]
data = moons(samples=60, val=20, test=4)
attack = PGD(threat=Threat(eps=0.1, box=None), steps=2)

def train(model, defence, name, **options):
    trained = fit(model, data, defence, epochs=2, batch_size=12, seed=3, devices=2, validate_with=attack,
                  optimiser=Optimiser(name="sgd", lr=0.05), **options)
    save_file(trained.model.state_dict(), f"{folder}/{name}-{rank}.safetensors")

train(models.create("mlp", hidden=[8], seed=0), Standard(), "standard", keep="last", out=folder + "/run")
with torch.random.fork_rng():
    torch.manual_seed(0)
    norm = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
regularised = LayerRegularised(AdversarialTraining(attack), layers=["2"], gamma=0.5)
train(norm, regularised, "norm", average=0.5)
with torch.random.fork_rng():
    torch.manual_seed(0)
    norm = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
monitors = [CatastrophicOverfitting(every=2, then="rollback", fall=0.001), EarlyStopping(patience=1)]
train(norm, AdversarialTraining(attack), "watched", average=SWA(start=0.5), monitors=monitors)
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Where two processes have left what they trained."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "script.py").write_text(SCRIPT)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(folder / "script.py")]
    done = subprocess.run(
        [sys.executable, *words, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
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
