"""A network that knows by hand what its layers are, one input at a time, and what that makes of two sets of inputs."""

from dataclasses import dataclass

import torch
from torch import nn

from buttress.engine.perturbation import Perturbation

FEATURES, STEPS, WIDTH, CLASSES = 24, 6, 4, 3  # an input is 6 steps of 4 features


class Network(nn.Module):
    """What the tests want to know of a network.

    Those whose layers are computed by hand have ``by_hand(x)``: layer -> value, or None where it does not run, in the
    order of execution, of one input (24,).

    Attributes:
        layers: the selection that is analysed.
        last: the layer behind which the network is affine, so that its tolerance has a closed form.
        left_out: the layers of which `LayerProfile.left_out` must say why they have no numbers.
        missed: the functions that `LayerProfile.missed` must name.
        searched: whether a tolerance can be found: not where a gradient is missing, nor where a replacement is lost.
    """

    layers = "activations"
    last = "relu"
    left_out = frozenset()
    missed = ()
    searched = True

    def __init__(self, features):
        super().__init__()
        self.head = nn.Linear(features, CLASSES)

    def left_out_of(self, sizes):
        """``left_out`` for batches of these sizes."""
        return self.left_out

    def rest(self, value, x):
        """(3,) logits of one input (24,) whose layer `last` has this value."""
        return self.head(value.flatten())


class OneLayer(Network):
    """Six features, whose activation is the only layer but for what a network adds."""

    def __init__(self):
        super().__init__(6)
        self.fc = nn.Linear(FEATURES, 6)

    def by_hand(self, x):
        return {self.last: self.fc(x).clamp(min=0)}


class ThreeLayers(Network):
    """Three matrices of six rows, for networks that differ in how they call them."""

    def __init__(self):
        super().__init__(6)
        self.one, self.two, self.three = nn.Linear(FEATURES, 6), nn.Linear(6, 6), nn.Linear(6, 6)


def tokens(x):
    """(..., 6, 4) steps of inputs (..., 24)."""
    return x.unflatten(-1, (STEPS, WIDTH))


def inputs(count, seed=0):
    return 0.2 + 0.6 * torch.rand(count, FEATURES, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, kw_only=True)
class Wave(Perturbation):
    """A noise that depends on nothing but the value it is added to."""

    size: float = 0.2

    def perturb(self, oracle, x, y, random):
        return x + self.size * torch.sin(40 * x)


def values(network, x):
    """Layer -> the values by hand of all inputs, None where the layer does not run, in the order of execution."""
    each = [network.by_hand(one) for one in x]
    return {name: [layers[name] for layers in each] for name in each[0]}


def displacement(network, x, x_adv, centred=False):
    """Layer -> (N,) relative or centred error; NaN where the layer does not run in both passes, or has no size."""
    clean, perturbed = values(network, x), values(network, x_adv)
    middle = {name: _mean([value for value in clean[name] if value is not None]) if centred else 0.0 for name in clean}
    return {
        name: torch.stack([_error(a, b, middle[name]) for a, b in zip(clean[name], perturbed[name], strict=True)])
        for name in clean
    }


def _mean(each):
    return torch.stack(each).double().mean(0) if each else 0.0


def _error(clean, perturbed, middle):
    if clean is None or perturbed is None:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return (clean.double() - perturbed.double()).norm() / (clean.double() - middle).norm()


def logits(network, x):
    """(N, 3) by hand."""
    return torch.stack([network.rest(network.by_hand(one)[network.last], one) for one in x])


def distance(network, x, y):
    """(N,) the smallest relative L2 change of the layer `last` that makes another class as likely as ``y``."""
    return torch.stack([_distance(network, one, int(label)) for one, label in zip(x, y, strict=True)])


def _distance(network, x, label):
    value = network.by_hand(x)[network.last].detach()
    slopes = torch.autograd.functional.jacobian(lambda point: network.rest(point, x), value).flatten(1)
    reached = network.rest(value, x).detach()
    gaps = (reached[label] - reached) / (slopes[label] - slopes).norm(dim=1)
    return gaps[torch.arange(CLASSES) != label].min() / value.norm()
