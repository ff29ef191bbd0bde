"""The callbacks for Lightning, in a Trainer that calls them in Lightning's order: as a plain loop trains."""

import copy
import sys

import pytest
import torch
from torch import nn

from buttress import defences
from buttress.data.sets.moons import moons
from buttress.errors import UserError

MODULE = "buttress.integrations.lightning"


class Module(nn.Module):
    """What a LightningModule is for the callbacks."""

    automatic_optimization = True
    device = torch.device("cpu")

    def __init__(self, net):
        super().__init__()
        self.net, self.logged = net, []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        raise AssertionError("the defence takes its place")

    def log_dict(self, figures, **_):
        self.logged.append({name: float(figure) for name, figure in figures.items()})


class Trainer:
    """The order of Lightning's hooks."""

    sanity_checking = False
    accumulate_grad_batches = 1

    def __init__(self, callbacks, max_epochs=2, max_steps=-1, validates=False):
        self.callbacks, self.max_epochs, self.max_steps = callbacks, max_epochs, max_steps
        self.enable_validation = validates

    def call(self, hook, *args):
        for callback in self.callbacks:
            getattr(callback, hook)(self, *args)

    def fit(self, module, batches, begin=0, stop=None):
        self.num_training_batches = len(batches)
        self.call("setup", module, "fit")
        self.call("on_train_start", module)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for number, batch in list(enumerate(batches * 2))[begin:stop]:
            module.train()
            optimizer.zero_grad()
            module.training_step(batch, number).backward()
            optimizer.step()
            if (number + 1) % len(batches) == 0:
                if self.enable_validation:
                    self.call("on_validation_epoch_end", module)
                self.call("on_train_epoch_end", module)
        self.call("teardown", module, "fit")
        return module


class Callback:
    def setup(self, *_):
        pass

    on_train_start = on_validation_epoch_end = on_train_epoch_end = teardown = setup


@pytest.fixture
def lightning(with_package):
    return with_package(MODULE, "lightning.pytorch", {"Callback": Callback})


@pytest.mark.parametrize("defence", [defences.TRADES, defences.AdversarialTraining, defences.Standard])
def test_a_defence_trains_as_in_a_plain_loop(defence, lightning, small, batches, by_hand, same_weights):
    module = Trainer([lightning.LightningDefence(defence(), seed=3)]).fit(Module(small()), batches)
    same_weights(module.net, by_hand(small(), defence()))
    assert len(module.logged) == 8
    assert module.logged[0]["train_loss"] > 0
    with pytest.raises(AssertionError, match="takes its place"):  # its own step is back
        module.training_step(batches[0], 0)


def test_a_training_that_goes_on_goes_on_at_its_step(lightning, small, batches, by_hand, same_weights):
    first = lightning.LightningDefence(defences.TRADES(), seed=3)
    module = Trainer([first]).fit(Module(small()), batches, stop=3)
    second = lightning.LightningDefence(defences.TRADES(), seed=3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    Trainer([second]).fit(module, batches, begin=3)
    same_weights(module.net, by_hand(small(), defences.TRADES()))


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"max_epochs": -1}, "a defence must know how long it trains: give the Trainer max_epochs or max_steps"),
        (
            {"max_epochs": None, "batches": float("inf")},
            "a defence must know how long it trains: .*limit_train_batches",
        ),
    ],
)
def test_a_training_without_an_end_is_refused(how, line, lightning):
    trainer = Trainer([], how["max_epochs"])
    trainer.num_training_batches = how.get("batches", 4)
    with pytest.raises(UserError, match=line):
        lightning._length(trainer)


def test_steps_are_read_as_epochs(lightning):
    trainer = Trainer([], None, max_steps=10)
    trainer.num_training_batches = 4
    assert lightning._length(trainer) == (3, 4)


def test_what_cannot_be_served_is_refused(lightning, small):
    module = Module(small())
    with pytest.raises(UserError, match=r"awp\(at\) is more than a loss"):
        Trainer([lightning.LightningDefence(defences.AWP())]).fit(module, [1])
    points = moons(samples=20, val=4, test=4)
    flat = Module(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)))
    with pytest.raises(UserError, match="dial has weights of its own, which the module's optimiser does not train"):
        Trainer([lightning.LightningDefence(defences.DIAL(), data=points)]).fit(flat, [1])
    module.automatic_optimization = False
    with pytest.raises(UserError, match="needs automatic optimisation"):
        lightning.LightningDefence(defences.TRADES()).setup(None, module, "fit")
    lightning.LightningDefence(defences.TRADES()).setup(None, module, "test")  # nothing is trained


@pytest.mark.parametrize("validates", [True, False])
def test_accuracies_are_logged_once_an_epoch(validates, lightning, small, batches):
    callbacks = [lightning.LightningDefence(defences.Standard()), lightning.LightningRobustness(batches)]
    module = Trainer(callbacks, validates=validates).fit(Module(small()), batches)
    found = [row for row in module.logged if "robust_accuracy" in row]
    assert len(found) == 2
    assert all(row["robust_accuracy"] <= row["clean_accuracy"] for row in found)
    trainer = Trainer(callbacks)
    trainer.sanity_checking = True
    callbacks[1].on_validation_epoch_end(trainer, module)
    assert [row for row in module.logged if "robust_accuracy" in row] == found


def test_without_lightning_the_line_says_what_to_install(with_package):
    with pytest.raises(UserError, match=r"Lightning cannot be imported \(.*\): pip install 'buttress\[lightning\]'"):
        with_package(MODULE, "lightning.pytorch", None)


def test_of_the_two_packages_the_one_in_use_is_taken(with_package, monkeypatch):
    monkeypatch.delitem(sys.modules, "lightning.pytorch", raising=False)
    other = type("Callback", (Callback,), {})
    found = with_package(MODULE, "pytorch_lightning", {"Callback": other})
    assert issubclass(found.LightningDefence, other)
