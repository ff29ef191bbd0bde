"""Smoothing through the one call for all certificates."""

import math

import pytest
import torch
from torch import nn

from buttress import certificates, tasks
from buttress.certificates import Smoothed, certify
from buttress.errors import UserError
from buttress.threat import Threat

THREAT = Threat(norm="l2", eps=0.3, box=None)
SETTINGS = {"method": "smoothing", "sigma": 0.5, "n": 2_000}


@pytest.fixture
def plane():
    """Class 1 where the first of two values is above 0; inputs at six distances, one of them of the other class."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        model.bias.zero_()
    x = torch.tensor([[0.9, 0.0], [0.5, 1.0], [0.2, 0.0], [0.0, 0.0], [-0.6, 0.0], [-0.6, 0.0]])
    return model, x, torch.tensor([1, 1, 1, 1, 0, 1])


def test_it_states_what_the_smoothed_network_does_within_the_threat(plane):
    model, x, y = plane
    certificate = certify(model, x, y, threat=THREAT, **SETTINGS)
    found = Smoothed(model, sigma=0.5, n=2_000).certify(x)
    assert certificate.verified.tolist() == [True, True, False, False, True, False]
    assert certificate.falsified.tolist() == [False, False, False, False, False, True]
    assert certificate.unknown.tolist() == [False, False, True, True, False, False]
    torch.testing.assert_close(certificate.margin[:3], found.radius[:3] - 0.3, rtol=0, atol=0)
    assert certificate.margin[[3, 5]].tolist() == [-math.inf, -math.inf]
    assert bool(((certificate.margin > 0) == certificate.verified).all())
    assert (certificate.method, certificate.sound, certificate.probability) == ("smoothing", False, 0.999)


def test_radii_are_the_smoothed_networks_up_to_the_threats(plane):
    model, x, y = plane
    found = Smoothed(model, sigma=0.5, n=2_000).certify(x)
    radii = certificates.radius(model, x, y, threat=THREAT, **SETTINGS)
    wanted = torch.where(found.certified(y), found.radius, 0.0).clamp(max=0.3)
    assert torch.equal(radii, wanted)


def test_it_needs_no_reading_of_the_network(nets):
    """Also one whose operations no bound is known of; in l1 by uniform noise, and all statements together."""

    class Opaque(nn.Module):
        def forward(self, x):
            return torch.stack([torch.fft.fft(row).real for row in x]) ** 3

    x = torch.eye(3)
    certificate = certify(
        Opaque(),
        x,
        torch.zeros(3).long(),
        threat=Threat(norm="l1", eps=0.01),
        method="smoothing",
        sigma=0.1,
        n=50,
        joint=True,
    )
    assert certificate.probability == 0.999
    assert certificate.verified.shape == (3,)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"threat": Threat(eps=0.1)}, "smoothing certifies in l2 or l1; got linf: give norm l2"),
        ({"sigma": None}, "sigma must be a finite number above 0; got None"),
        ({"sgma": 0.1}, "smoothing has no setting 'sgma'; did you mean 'sigma'"),
        ({"norm": "l1"}, "smoothing has no setting 'norm'"),
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more; got 0"),
        ({"task": tasks.Regression()}, "smoothing needs classes, which regression has not"),
    ],
)
def test_what_cannot_be_stated_is_told(plane, changes, line):
    model, x, y = plane
    with pytest.raises(UserError, match=line):
        certify(model, x, y, **{"threat": THREAT, **SETTINGS, **changes})


def test_sigma_is_asked_for(plane):
    model, x, y = plane
    with pytest.raises(UserError, match=r"smoothing needs sigma, .*: give sigma=0\.25"):
        certify(model, x, y, threat=THREAT, method="smoothing")
