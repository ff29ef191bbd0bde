import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from buttress.audits.layers import Layers
from buttress.errors import UserError
from buttress.jobs.vulnerable_layers import named_layers, vulnerable_layers
from buttress.layers import LayerProfile

X = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))


class Inputs:
    """A split of inputs."""

    def __len__(self):
        return len(X)

    def take(self, index):
        return (X[index],)


DATA = SimpleNamespace(train=Inputs())


class Known(Layers):
    """A layer audit that finds the displacements it is told, of the layers that it looks at."""

    def profile(self, subject, measure=None):
        names = [name for name in subject.found if self.layers == "activations" or name in self.layers]
        values = torch.stack([torch.as_tensor(subject.found[name]).expand(400) for name in names])[None]
        before = list(range(-1, len(names) - 1))
        return LayerProfile.of(names, ["pgd"], "m", values, torch.ones(1, 400), predecessors=before, crossed=[])


def chosen(found, eta=None, model=None):
    """What is chosen where each layer has these displacements; by default in a chain of activations."""
    if model is None:
        model = nn.Sequential(nn.Linear(3, 3))
        for name in found:
            model.add_module(name, nn.Sigmoid())
    return vulnerable_layers(SimpleNamespace(found=found), [Known()], eta, model, DATA)


@pytest.mark.parametrize(("eta", "names"), [(None, ["d"]), (0.0, ["d", "a"]), (0.2, ["d", "a"]), (1.0, ["d"])])
def test_the_cut_off_names_layers_worst_first(eta, names):
    """Means 3, 1, undefined, 4: mu is 8/3, sigma 1.25; the widest gap is the one below 4."""
    assert chosen({"a": 3.0, "b": 1.0, "c": math.nan, "d": 4.0}, eta) == names


def test_a_cut_off_that_no_layer_passes_is_told(caplog):
    assert chosen({"a": 3.0, "b": 1.0, "d": 4.0}, 9.0) == ["d"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("No layer passes eta 9: the cut-off at the widest gap, ")


def test_a_lone_layer_is_the_most_vulnerable_one():
    assert chosen({"a": 2.0}) == ["a"]


def test_where_nothing_stands_out_the_user_is_asked():
    with pytest.raises(UserError, match="no layer stands out under pgd: name some by --layers, of a, b"):
        chosen({"a": 2.0, "b": 2.0})


def test_where_nothing_was_measured_the_reasons_are_told():
    class Nothing(Layers):
        def profile(self, subject, measure=None):
            empty = torch.zeros(1, 0, 400)
            left_out = {"relu": "is a nested tensor"}
            return LayerProfile.of(
                [], ["pgd"], "m", empty, torch.ones(1, 400), predecessors=[], crossed=[], left_out=left_out
            )

    with pytest.raises(UserError, match=r"no layer can be regularised: relu \(is a nested tensor\); name others by"):
        vulnerable_layers(SimpleNamespace(), [Nothing()], None, nn.Linear(3, 3), DATA)


def test_layers_that_cannot_be_told_apart_are_both_chosen():
    """0.258 and 0.255, +-0.05 over 400 inputs, and a third that is clearly lower."""
    noise = 0.05 * torch.randn(3, 400, generator=torch.Generator().manual_seed(0))
    values = torch.tensor([0.255, 0.258, 0.2])[:, None] + noise
    assert set(chosen(dict(zip(["a", "b", "c"], values, strict=True)))) == {"a", "b"}


class Routed(nn.Module):
    """An expert that sees a part of the inputs, an activation that training skips, and one that all cross."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.expert, self.beside, self.act = nn.ReLU(), nn.Tanh(), nn.ReLU()

    def forward(self, x):
        h, some = self.one(x), x[:, 0] > 0.5
        h = torch.where(some[:, None], h.index_put((some,), self.expert(h[some])), h)
        return self.two(self.act(h if self.training else h + self.beside(h)))


def test_layers_that_cannot_be_regularised_are_not_chosen_and_said(caplog):
    every = {"expert": 9.0, "beside": 8.0, "act": 1.0}
    assert chosen(every, 0.0, Routed()) == ["act"]  # not one of the named two can be: of all that can
    assert "displaced most, but not regularised: expert (it is computed for a part" in caplog.text
    assert "beside (it does not run in training passes" in caplog.text
    assert chosen(every, -2.0, Routed()) == ["act"]  # of all three that are named
    with pytest.raises(UserError, match=r"no layer can be regularised: .*carries no gradient"):
        chosen(every, -2.0, Routed().requires_grad_(False))


def test_patterns_mean_all_layers_that_match_and_each_once():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 4))
    assert named_layers(model, DATA, ["[12]", "1"]) == ["1", "2"]
    assert named_layers(model, DATA, ["2", "1"]) == ["2", "1"]
    with pytest.raises(UserError, match=r"no layer is called or matches 'relu\*'"):
        named_layers(model, DATA, ["1", "relu*"])
    with pytest.raises(UserError, match="layer '1' cannot be regularised, for its value carries no gradient"):
        named_layers(model.requires_grad_(False), DATA, ["[12]"])
