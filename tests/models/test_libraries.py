"""Architectures of RobustBench, by a stand-in of its zoo's shape: it cannot be installed beside every torch."""

import socket
import sys
import types
from collections import OrderedDict
from enum import Enum

import pytest
import torch
from torch import nn

from buttress import data, models
from buttress.errors import UserError
from buttress.jobs.settings import Network, Source, open_network

SOURCE = Source(data="digits", limit=50)


class Data(Enum):
    cifar_10 = "cifar10"
    imagenet = "imagenet"


class Threat(Enum):
    Linf = "Linf"
    L2 = "L2"


class Normalizer(nn.Module):
    """As RobustBench's own: buffers of shape (1, C, 1, 1)."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def normalised():
    return nn.Sequential(OrderedDict(normalize=Normalizer([0.5], [0.25]), model=network()))


def downloading():
    socket.create_connection(("weights.example", 443), timeout=1)


def broken():
    raise RuntimeError("No CUDA GPUs are available\nand more")


ZOO = {
    Data.cifar_10: {
        Threat.Linf: {
            "Own2020": {"model": network, "gdrive_id": "1"},
            "Standard": {"model": network, "gdrive_id": "2"},
            "Fetches2021": {"model": downloading, "gdrive_id": None},
            "Old2019": {"model": broken, "gdrive_id": "3"},
        },
        Threat.L2: {"Standard": {"model": network, "gdrive_id": "2"}, "Two": {"model": network, "gdrive_id": "4"}},
    },
    Data.imagenet: {Threat.Linf: {"Inside2022": {"model": normalised}, "Two": {"model": normalised}}},
}


@pytest.fixture
def zoo(monkeypatch):
    package = types.ModuleType("robustbench")
    package.model_zoo = types.ModuleType("robustbench.model_zoo")
    package.model_zoo.model_dicts = ZOO
    monkeypatch.setitem(sys.modules, "robustbench", package)
    monkeypatch.setitem(sys.modules, "robustbench.model_zoo", package.model_zoo)


@pytest.mark.usefixtures("zoo")
class TestOfTheZoo:
    @pytest.mark.parametrize("name", ["Own2020", "cifar10/Linf/Own2020", "Standard", "imagenet/Linf/Two"])
    def test_an_entry_is_made_and_made_again_by_what_is_remembered(self, name):
        made = models.create(f"robustbench:{name}", seed=1)
        again = models.from_spec(models.spec_of(made))
        again.load_state_dict(made.state_dict())
        x = torch.rand(3, 1, 8, 8)
        assert again(x).equal(made(x))

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("Own2021", "RobustBench as installed has no model 'Own2021'; did you mean 'Own2020'?"),
            (
                "Two",
                "RobustBench has several models 'Two': type robustbench:cifar10/L2/Two or "
                "robustbench:imagenet/Linf/Two",
            ),
            ("Old2019", "'robustbench:Old2019' cannot be made: RuntimeError: No CUDA GPUs are available"),
            (
                "Fetches2021",
                "'robustbench:Fetches2021' cannot be made: OSError: it wants to download weights: make it in a "
                "function of your own, file.py:function",
            ),
        ],
    )
    def test_what_cannot_be_made_is_told(self, name, line):
        usual = socket.getaddrinfo
        with pytest.raises(UserError) as caught:
            models.create(f"robustbench:{name}")
        assert str(caught.value) == line
        assert socket.getaddrinfo is usual

    def test_an_option_is_refused(self):
        with pytest.raises(UserError, match=r"'robustbench:Own2020' has no option 'depth'; it takes none"):
            models.create("robustbench:Own2020", depth=3)

    def test_trained_weights_are_loaded_and_inputs_given_as_they_are(self, tmp_path):
        trained = network()
        torch.save({"state_dict": {f"module.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "w.pt")
        model, dataset, facts = open_network("robustbench:Own2020", Network(weights=tmp_path / "w.pt"), SOURCE, 0)
        x = dataset.test.take(torch.arange(4))[0]
        assert model(x).equal(trained(x))
        assert facts["preprocessing"] == (
            "inputs are given to robustbench:Own2020 as they are, from 0 to 1, which is what RobustBench's networks "
            "expect"
        )

    def test_weights_of_a_network_behind_its_own_normalisation_are_loaded_and_it_is_told(self, tmp_path):
        trained = network()
        torch.save(trained.state_dict(), tmp_path / "w.pt")
        weights = Network(weights=tmp_path / "w.pt")
        model, dataset, facts = open_network("robustbench:Inside2022", weights, SOURCE, 0)
        x = dataset.test.take(torch.arange(4))[0]
        assert model(x).equal(trained((x - 0.5) / 0.25))
        assert facts["preprocessing"] == "inputs are normalised before the network: mean 0.5, std 0.25"

    @pytest.mark.parametrize("normalise", ["imagenet", "0.5/0.25", "data", True])
    def test_normalising_once_more_is_refused(self, normalise):
        line = r"robustbench:Own2020 takes inputs in \[0, 1\] and normalises them inside: leave --normalise out"
        with pytest.raises(UserError, match=line):
            Network(model="robustbench:Own2020", normalise=normalise).create(data.load("digits"), 0)

    def test_missing_weights_are_told_with_the_place_where_robustbench_keeps_them(self):
        with pytest.raises(UserError) as caught:
            open_network("robustbench:Own2020", Network(), SOURCE, 0)
        assert str(caught.value) == (
            "robustbench:Own2020 is an architecture without trained weights, and none are downloaded: give --weights "
            "FILE; where RobustBench's load_model has fetched them, that is models/cifar10/Linf/Own2020.pt"
        )


def test_without_robustbench_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(UserError) as caught:
        models.create("robustbench:Own2020")
    assert str(caught.value).startswith("'robustbench:Own2020' needs RobustBench, which cannot be imported (")
    assert str(caught.value).endswith("): pip install git+https://github.com/RobustBench/robustbench")


@pytest.mark.parametrize("options", [{}, {"drop_rate": 0.1}])
def test_an_architecture_of_timm_is_not_audited_with_random_weights(options):
    line = "timm:resnet18 is an architecture without trained weights: give --weights FILE, or --model-args.pretrained"
    with pytest.raises(UserError, match=line):
        open_network("timm:resnet18", Network(model_args=options), SOURCE, 0)
