"""Smallest perturbations of linear networks, which are known: the margin over the dual norm of the weights."""

import math

import pytest
import torch
from torch import nn

from buttress import audits
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.inputs import brackets as module
from buttress.audits.inputs.brackets import brackets
from buttress.threat import Threat

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


@pytest.fixture(scope="module")
def plane(nets):
    """(model, x, y, f, w): a plane through a wide box, f(x) = w x + b being what class 1 is ahead by."""
    w, b = torch.tensor([0.7, -1.1, 0.4]), -0.1
    model = nets.linear([[0.0, 0.0, 0.0], w.tolist()], [0.0, b])
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    f = x @ w + b
    y = (f > 0).long()
    y[:3] = 1 - y[:3]
    return model, x, y, f, w


def asked(model, x, y, attack, besides=False, certificate="crown", rows=None, **settings):
    subject = audits.subject(model, [(x, y)], **settings)
    rows = torch.arange(len(y)) if rows is None else rows
    return brackets(subject, rows, [attack.within()], besides, certificate)


@pytest.mark.parametrize("norm", DUAL)
def test_both_ends_are_the_distance_to_the_plane(plane, norm):
    model, x, y, f, w = plane
    exact = f.abs().double() / torch.linalg.vector_norm(w.double(), DUAL[norm])
    exact[:3] = 0.0  # wrong as they are
    threat = Threat(norm=norm, eps=0.05, box=(-4.0, 4.0))
    found = asked(model, x, y, PGD(threat=threat, steps=20), besides=True)
    assert {"FMN-100", "FAB-20"} < set(found.attacks)
    assert found.unknown == ""
    torch.testing.assert_close(found.smallest, exact, rtol=0.01, atol=1e-6)
    assert bool((found.smallest >= exact * (1 - 1e-5)).all())
    below = exact - found.certified
    assert bool((below >= -1e-6).all())
    assert float(below.max()) < float(exact.max()) / 512 + 1e-4
    assert not bool(found.crossed.any())
    assert found.found_by[:3] == ["", "", ""]
    assert all(found.found_by[3:])


def test_a_budgeted_attack_alone_comes_within_a_step_of_its_budgets(plane):
    """PGD succeeds at every budget above the distance: the smallest of those is at most a factor 2^(1/3) above it."""
    model, x, y, f, w = plane
    exact = (f.abs() / w.abs().sum()).double()[3:]
    found = asked(model, x, y, PGD(threat=Threat(eps=0.05), steps=20), certificate=None)
    smallest = found.smallest[3:]
    near = (exact < 0.1) & (exact > 0.05 * 2 ** (-11 / 3))
    assert 5 < int(near.sum()) < 17
    assert bool((smallest >= exact * (1 - 1e-5)).all())
    assert bool((smallest <= exact * 2 ** (1 / 3))[near].all())
    assert bool(smallest[exact > 0.101].isinf().all())
    assert (found.certified, found.unknown) == (None, "no certificate was asked for")


def test_figures_do_not_depend_on_the_batch_size(nets):
    model, x = nets.conv(seed=3), torch.rand(9, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    attack = PGD(threat=Threat(eps=0.1), steps=3)
    one, other = (asked(model, x, y, attack, True, None, batch_size=size) for size in (9, 2))
    torch.testing.assert_close(one.smallest, other.smallest, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_bounded_is_named(nets):
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x):
            return self.linear(x.sort(1).values)

    model, x = nets.seeded(Sorted), torch.rand(5, 3)
    y = model(x).argmax(1)
    found = asked(model, x, y, PGD(threat=Threat(eps=0.5), steps=2))
    assert found.certified is None
    assert "sort" in found.unknown


def test_a_contradiction_is_seen(plane, monkeypatch):
    model, x, y, _, _ = plane
    too_large = torch.full((20,), 3.0, dtype=torch.float64)
    monkeypatch.setattr(module.certificates, "radius", lambda *args, **settings: too_large)
    attack = PGD(threat=Threat(eps=0.5), steps=5)
    assert bool(asked(model, x, y, attack).crossed.any())
    finding = audits.Inputs(attacks=[attack], minimum_norm=False)(model, [(x, y)])
    assert finding.severity == "bad"
    assert "contradict each other on" in finding.verdict


def test_nothing_is_attacked_twice(plane):
    model, x, y, _, _ = plane
    subject = audits.subject(model, [(x, y)])
    audit = audits.Inputs(attacks=[PGD(threat=Threat(eps=0.05), steps=2)], certificate=None)
    audit.ask(subject)
    before = dict(subject.store)
    audit.ask(subject)
    assert subject.store == before
