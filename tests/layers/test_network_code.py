"""What was read of a network's code and is kept: the same names and values, and not for too long."""

import copy
import gc
import io
import pickle
import weakref
from functools import partial

import pytest
import torch
from tests.layers.zoo.network import Wave
from tests.models.test_every_model import every_model, inputs, make, scramble
from torch import nn
from torch.nn import functional as F

from buttress.attacks import Gaussian
from buttress.data.dataset import Dataset, Split
from buttress.defences import Batch, StepContext
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.layers import places, sustainability, tolerance
from buttress.layers.capture import capture
from buttress.layers.network_code import NetworkCode
from buttress.layers.patching import patching
from buttress.layers.places import Places
from buttress.training import fit


class Twice(nn.Module):
    """One relu after another, and what ``last`` names."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), F.relu
        self.kept, self.settings = [F.gelu], {"k": 0}

    def forward(self, x):
        x = F.relu(self.first(x))
        x = self.kept[self.settings["k"]](x)
        return self.last(x)


def seen(network, x, code=None):
    with torch.no_grad(), capture(network, ["*"], code=code) as values:
        network(x)
    return dict(values)


@pytest.fixture
def x():
    return torch.rand(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def reads(monkeypatch):
    """The pieces of code that were read."""
    found, read = [], Places._read

    def counted(places, steps, module):
        before = len(places._codes)
        read(places, steps, module)
        found.extend([module] * (len(places._codes) - before))

    monkeypatch.setattr(Places, "_read", counted)
    return found


def add(network):
    network.more = nn.ReLU()
    network.last = network.more


def rename(network):
    network.renamed = network._modules.pop("first")
    network.first = lambda x: network.renamed(x)


def replace_module(network):
    network.first = nn.Sequential(nn.Linear(3, 3), nn.ReLU())


def in_a_list(network):
    network.kept[0] = F.relu


def a_setting(network):
    network.kept.append(F.relu)
    network.settings["k"] = 1


def in_an_object(network):
    network.__class__ = type("Other", (Twice,), {"forward": lambda self, x: self.last(F.gelu(self.first(x)))})


def of_the_class(network):
    type(network).last = staticmethod(F.relu)
    del network.last


CHANGES = [add, rename, replace_module, in_a_list, a_setting, in_an_object, of_the_class]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_read_is_dropped_when_the_network_changes(change, x, reads):
    class Own(Twice):
        pass

    network, code = Own(), NetworkCode()
    for prepare in (lambda network: None, lambda network: setattr(network, "last", F.gelu), change):
        prepare(network)
        reads.clear()
        kept = seen(network, x, code)
        assert reads
        anew = seen(network, x)
        assert list(kept) == list(anew)
        for name, value in kept.items():
            assert torch.equal(value, anew[name])


def test_code_is_read_once(x, reads):
    network, code = Twice(), NetworkCode()
    names = list(seen(network, x, code))
    once = len(reads)
    assert once
    for mode in (True, True):
        assert list(seen(network.train(mode), x, code)) == names
    assert len(reads) == once
    seen(network, x)
    assert len(reads) == 2 * once
    assert names == ["first", "relu", "gelu", "relu#1"]


def test_another_network_is_read_anew(x):
    code = NetworkCode()
    for network in (Twice(), nn.Sequential(nn.Linear(3, 3), nn.ReLU()), Twice()):
        assert list(seen(network, x, code)) == list(seen(network, x))


@every_model
def test_names_and_values_are_the_same_with_and_without(name):
    network, x, code = make(name).eval(), inputs(name), NetworkCode()
    scramble(network)
    torch.manual_seed(0)
    anew = seen(network, x)
    for _ in range(2):
        torch.manual_seed(0)
        kept = seen(network, x, code)
        assert list(kept) == list(anew)
        for layer, value in kept.items():
            torch.testing.assert_close(value, anew[layer], rtol=0, atol=0, equal_nan=True)


def test_an_analysis_reads_the_code_once(x, reads):
    network, data = Twice(), [(x, torch.zeros(4, dtype=torch.int64))] * 3
    seen(network, x)
    once = len(reads)
    for analysis in (sustainability, partial(tolerance, steps=1, bisections=1), partial(patching, paths=0, doses=1)):
        reads.clear()
        analysis(network, data, Gaussian(std=0.1), ["relu", "gelu"])
        assert len(reads) <= 2 * once  # and before, to check the names


def test_training_steps_read_the_code_once_and_are_the_same(x, reads):
    batch = Batch(x, torch.tensor([0, 1, 2, 0]), torch.arange(4))
    network = Twice().train()
    found = []
    for code in (NetworkCode(), None):
        defence = LayerRegularised(AdversarialTraining(Wave()), ["relu", "gelu"])
        defence.loss(network, batch, StepContext(network, batch, code=code))  # finds the layouts
        reads.clear()
        for index in range(2):
            loss = defence.loss(network, batch, StepContext(network, batch, index=index, code=code))
        found.append((loss.value, loss.logs, len(reads)))
    (kept, logs, none), (anew, others, some) = found
    assert torch.equal(kept, anew)
    assert logs == others
    assert (none, some > 0) == (0, True)


def test_a_run_of_training_has_one_for_all_its_steps(x, monkeypatch):
    class Noted(Standard):
        def loss(self, model, batch, context):
            codes.append(context.code)
            return super().loss(model, batch, context)

    codes = []
    parts = [Split(x, torch.tensor([0, 1, 2, 0]), torch.arange(4) + 4 * k) for k in range(3)]
    data = Dataset("few", *parts, ("a", "b", "c"), (0.0, 1.0), "drawn")
    fit(Twice(), data, Noted(), epochs=3, validate_with="none")
    assert len(codes) == 3
    assert isinstance(codes[0], NetworkCode)
    assert all(code is codes[0] for code in codes)


def saved(code):
    file = io.BytesIO()
    torch.save({"code": code}, file)
    file.seek(0)
    return torch.load(file, weights_only=False)["code"]


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda code: pickle.loads(pickle.dumps(code)),
    "torch": saved,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_fail_nowhere_and_hold_nothing(way, x):
    class Local(Twice):  # which pickle refuses
        pass

    network, code = Local(), NetworkCode()
    seen(network, x, code)
    other = COPIES[way](code)
    assert isinstance(other, NetworkCode)
    assert vars(other).keys() == vars(code).keys()
    assert not other._parts
    assert not other._places._codes
    assert list(seen(network, x, other)) == list(seen(network, x, code))


class Closing(nn.Module):
    """A helper that closes over what was computed."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def forward(self, x):
        hidden = x * 2
        self.noted.append(weakref.ref(hidden))

        def helper():
            return F.relu(hidden)

        return helper()


def test_nothing_computed_is_kept(x):
    network, code = Closing(), NetworkCode()
    for _ in range(2):
        assert list(seen(network, x, code)) == ["relu"]
    gc.collect()
    assert [noted() for noted in network.noted] == [None, None]


class Writing(nn.Module):
    """Writes its code anew in each pass."""

    passes = 0

    def forward(self, x):
        names = {"relu": F.relu}
        self.passes += 1
        exec("\n" * self.passes + "def helper(x):\n    return relu(x)", names)
        return names["helper"](x)


def test_code_that_is_written_in_each_pass_is_not_kept_for_ever(x, monkeypatch):
    monkeypatch.setattr(places, "_MOST", 6)
    network, found = Writing(), Places()
    monkeypatch.setattr(NetworkCode, "places", lambda code, network: found)  # as if its settings did not change
    for _ in range(20):
        assert list(seen(network, x, NetworkCode())) == ["relu"]
        assert len(found._codes) <= 6
        assert len(found._numbers) <= 6
