"""Defences known to be broken, small: each makes gradients useless, and none makes the network robust.

All but the trained ones wrap a network that has learnt the digits without any defence.
"""

import copy
import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

from buttress.data.sets.digits import digits
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.training import fit


def network(side=8, seed=0):
    """Three linear layers for square images of one channel and ten classes."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        sizes = [side * side, 128, 64, 10]
        layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *layers[:-1])


def trained(model, defence=None, *, epochs=15, **settings):
    """The model after training on the digits."""
    return fit(model, digits(), defence, epochs=epochs, validate_with="none", keep="last", **settings).model.eval()


class Scaled(nn.Module):
    """Logits times a factor: the softmax saturates."""

    def __init__(self, model, factor=1e4):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.factor * self.model(x)


class Before(nn.Module):
    """Something done to the input before the network sees it."""

    def __init__(self, model, prepare):
        super().__init__()
        self.model, self.prepare = model, prepare

    def forward(self, x):
        return self.model(self.prepare(x))


class Quantised(nn.Module):
    """Rounds values to so many levels; the derivative of rounding is 0."""

    def __init__(self, levels=8):
        super().__init__()
        self.levels = levels

    def forward(self, x):
        return torch.round(x * self.levels) / self.levels


class OnlyInUse(Quantised):
    """Rounds in eval mode alone."""

    def forward(self, x):
        return x if self.training else super().forward(x)


class Detached(nn.Module):
    """Cuts the input off from autograd."""

    def forward(self, x):
        return x.detach()


class Jpeg(nn.Module):
    """The cosine transform of 8x8 blocks, its coefficients rounded to multiples of a step that grows with frequency."""

    def __init__(self, step=0.15):
        super().__init__()
        k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
        basis = torch.cos(math.pi * k * (2 * n + 1) / 16) * 0.5
        basis[0] /= math.sqrt(2)
        self.register_buffer("basis", basis)
        self.register_buffer("steps", step * (1 + (k + n) / 4))

    def forward(self, x):
        coefficients = self.basis @ x @ self.basis.T
        return (self.basis.T @ (torch.round(coefficients / self.steps) * self.steps) @ self.basis).clamp(0, 1)


class ResizedAndPadded(nn.Module):
    """A random smaller size and a random place for it on a larger canvas, drawn anew for each pass."""

    def forward(self, x):
        side = int(torch.randint(6, 10, ()))
        small = F.interpolate(x, size=side, mode="bilinear", align_corners=False)
        top, left = (int(torch.randint(0, 12 - side + 1, ())) for _ in range(2))
        return F.pad(small, (left, 12 - side - left, top, 12 - side - top))


class Thermometer(nn.Module):
    """Each value as its levels reached, a comparison without a derivative, and back to their mean."""

    def __init__(self, levels=10):
        super().__init__()
        self.register_buffer("levels", (torch.arange(levels) + 0.5) / levels)

    def forward(self, x):
        return (x[..., None] > self.levels).float().mean(-1)


class Lookup(nn.Module):
    """Each value replaced by the nearest entry of a table, found by its index."""

    def __init__(self, entries=9):
        super().__init__()
        self.register_buffer("table", torch.linspace(0, 1, entries))

    def forward(self, x):
        return self.table[(x[..., None] - self.table).abs().argmin(-1)]


class Winners(nn.Module):
    """Only the largest k-th of the activations of a layer are heard (k-winners-take-all)."""

    def __init__(self, share=0.1):
        super().__init__()
        self.share = share

    def forward(self, x):
        rows = x.flatten(1)
        least = rows.topk(max(1, int(self.share * rows.shape[1])), dim=1).values[:, -1:]
        return (rows * (rows >= least)).view_as(x)


class Pruned(nn.Module):
    """Stochastic activation pruning: units drawn by their size, those that are not drawn are 0, the rest scaled up."""

    def __init__(self, share=0.7):
        super().__init__()
        self.share = share

    def forward(self, x):
        rows = x.flatten(1)
        chance = rows.abs() / rows.abs().sum(1, keepdim=True).clamp(min=1e-12)
        kept = 1 - torch.exp(-self.share * rows.shape[1] * chance)
        drawn = torch.rand_like(rows) < kept
        return torch.where(drawn, rows / kept.clamp(min=1e-6), 0).view_as(x)


class Saturated(nn.Module):
    """A sigmoid so steep that its derivative is 0 in float32 nearly everywhere."""

    def forward(self, x):
        return torch.sigmoid(5000 * (x - 0.47))


class _Sent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return torch.sin(1e3 * x + torch.arange(x[0].numel(), dtype=x.dtype).view_as(x[0]))


class Astray(nn.Module):
    """The input itself, with a made-up gradient."""

    def forward(self, x):
        return _Sent.apply(x)


def after(model, layer):
    """A copy of the network with ``layer()`` in place of each activation."""
    model = copy.deepcopy(model)
    for index, part in enumerate(model):
        if isinstance(part, nn.ReLU):
            model[index] = nn.Sequential(part, layer())
    return model


def distilled(teacher, temperature=100.0):
    """A student of the teacher's answers at a high temperature, used at temperature 1 (Papernot et al., 2016)."""
    data = digits()
    x, _, _ = data.train.take(torch.arange(len(data.train)))
    student = network(seed=1)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        optimiser = torch.optim.Adam(student.parameters(), 3e-3)
        with torch.no_grad():
            soft = teacher(x).softmax(1)
        for _ in range(15):
            for rows in torch.randperm(len(x)).split(64):
                optimiser.zero_grad()
                F.cross_entropy(student(x[rows]) / temperature, soft[rows]).backward()
                optimiser.step()
    return student.eval()


def overfitted(threat, epochs=12):
    """Trained on single steps without a random start, until it knows the step and nothing else."""
    from buttress.attacks.gradient.fgsm import FGSM

    return trained(network(), AdversarialTraining(FGSM(threat=threat)), epochs=epochs)
