"""The adapter of auto_LiRPA, by a stand-in of its API that bounds by our own CROWN: it takes no torch of today."""

import sys
import types

import pytest
import torch
from torch import nn

from buttress import certificates
from buttress.certificates.bounds.intervals import tightened
from buttress.certificates.bounds.linear import Functions, linear_bound
from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.bounds.region import Region
from buttress.certificates.network.recording import record
from buttress.errors import UserError
from buttress.threat import Threat

NORMS = {torch.inf: "linf", 2.0: "l2", 1.0: "l1"}


class PerturbationLpNorm:
    def __init__(self, norm, eps, x_L=None, x_U=None):
        self.norm, self.eps, self.low, self.high = NORMS[norm], eps, x_L, x_U


class BoundedTensor:
    def __init__(self, x, ptb):
        self.x, self.ptb = x, ptb


class BoundedModule:
    """Takes the region from x_L and x_U where they are given, the whole ball else."""

    raised = 0.0
    calls = ()

    def __init__(self, net, example, device):
        self.net = net

    def set_bound_opts(self, options):
        self.options = options

    def compute_bounds(self, x, C, method, bound_upper):
        assert not bound_upper
        (bounded,) = x
        type(self).calls.append({"method": method, "eps": bounded.ptb.eps, **self.options})
        network = BoundedNetwork(record(self.net, bounded.x[:1], lambda logits: logits).detached())
        region = Region(Threat(norm=bounded.ptb.norm, eps=bounded.ptb.eps, box=None), bounded.x)
        if bounded.ptb.low is not None:
            region.low, region.high = bounded.ptb.low, bounded.ptb.high
        with torch.no_grad():
            functions = Functions.of(network.graph.result, C.transpose(0, 1)[:, :, None])
            line = linear_bound(network, functions, tightened(network, region))
            return line.least(region).T + self.raised, None


@pytest.fixture
def installed(monkeypatch):
    library, perturbations = types.ModuleType("auto_LiRPA"), types.ModuleType("auto_LiRPA.perturbations")
    library.BoundedModule, library.BoundedTensor = BoundedModule, BoundedTensor
    perturbations.PerturbationLpNorm = PerturbationLpNorm
    monkeypatch.setitem(sys.modules, "auto_LiRPA", library)
    monkeypatch.setitem(sys.modules, "auto_LiRPA.perturbations", perturbations)
    monkeypatch.setattr(BoundedModule, "calls", [])
    return BoundedModule


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)), torch.rand(9, 2, 4)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize(("norm", "box"), [("linf", (0.0, 1.0)), ("linf", None), ("l2", None), ("l1", None)])
def test_bounds_are_those_of_the_library(norm, box, installed, problem):
    threat = Threat(norm=norm, eps=0.1, box=box)
    found = certificates.certify(*problem, threat=threat, method="auto-lirpa", steps=7)
    ours = certificates.certify(*problem, threat=threat, method="crown")
    assert (found.margin <= ours.margin + 1e-5).all()
    assert (found.margin >= ours.margin - 0.1).all()
    assert found.method == "auto-lirpa"
    (call,) = installed.calls
    assert (call["method"], call["optimize_bound_args"]) == ("CROWN", {"iteration": 7, "lr_alpha": 0.1})


def test_outside_linf_the_ball_is_bounded_without_the_box(installed, problem):
    """Lower than with it, and each input by its own budget in a search for radii."""
    model, x, y = problem
    threat = Threat(norm="l2", eps=1.5)
    without = certificates.certify(model, x, y, threat=threat, method="auto-lirpa").margin
    assert (without <= certificates.certify(model, x, y, threat=threat).margin + 1e-5).all()
    radii = certificates.radius(model, x, y, threat=threat, method="auto-lirpa", steps=3)
    assert len({call["eps"] for call in installed.calls}) > 2
    assert (radii <= certificates.radius(model, x, y, threat=threat, steps=3) + 1e-9).all()


def test_what_is_no_bound_is_refused(installed, problem, monkeypatch):
    monkeypatch.setattr(installed, "raised", 5.0)
    with pytest.raises(UserError, match="lower bounds above the margins of the inputs themselves"):
        certificates.certify(*problem, threat=Threat(eps=0.01), method="auto-lirpa")


def test_a_failure_inside_and_a_missing_library_are_one_line(installed, problem, monkeypatch):
    monkeypatch.setattr(installed, "compute_bounds", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"^auto_LiRPA cannot bound this network: .*use method='crown'$"):
        certificates.certify(*problem, threat=Threat(eps=0.01), method="auto-lirpa")
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)
    with pytest.raises(UserError, match=r"^method 'auto-lirpa' needs auto_LiRPA.*at least 2.0, below 2.9"):
        certificates.certify(*problem, threat=Threat(eps=0.01), method="auto-lirpa")
    with pytest.raises(UserError, match="bounds must be"):
        certificates.certify(*problem, method="auto-lirpa", bounds="crow")
