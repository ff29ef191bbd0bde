"""AutoAttack: its composition as published, who enters which part, what comes back, and the goal it is given."""

import math

import pytest
import torch
from torch import nn

from buttress.attacks import APGD, FAB, AutoAttack
from buttress.errors import UserError
from buttress.threat import Threat


def described(attack):
    """Each part's name, kind and the settings that the publication names."""
    rows = []
    for name, part in attack.suite():
        kind = type(part).__name__
        if isinstance(part, APGD):
            rows.append((name, kind, part.loss, part.steps, part.restarts, part.targets, part.large_start, part.rho))
        elif isinstance(part, FAB):
            rows.append((name, kind, part.steps, part.restarts, part.targets, part.alpha_max, part.eta, part.beta))
        else:
            rows.append((name, kind, part.queries, part.restarts, part.p, part.rescale, part.loss))
    return rows


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_standard_is_as_published(norm):
    assert described(AutoAttack(threat=Threat(norm=norm))) == [
        ("apgd-ce", "APGD", "cross_entropy", 100, 1, 0, False, 0.75),
        ("apgd-t", "APGD", "dlr", 100, 1, 9, False, 0.75),
        ("fab-t", "FAB", 100, 1, 9, 0.1, 1.05, 0.9),
        ("square", "Square", 5000, 1, 0.8, False, "margin"),
    ]


def test_standard_in_l1_is_as_published():
    assert described(AutoAttack(threat=Threat(norm="l1", eps=12.0))) == [
        ("apgd-ce", "APGD", "cross_entropy", 100, 5, 0, True, 0.75),
        ("apgd-t", "APGD", "dlr", 100, 1, 5, True, 0.75),
        ("fab-t", "FAB", 100, 1, 9, 0.1, 1.05, 0.9),
        ("square", "Square", 5000, 1, 0.8, False, "margin"),
    ]


def test_plus_and_rand_are_as_published():
    assert described(AutoAttack(version="plus")) == [
        ("apgd-ce", "APGD", "cross_entropy", 100, 5, 0, False, 0.75),
        ("apgd-dlr", "APGD", "dlr", 100, 5, 0, False, 0.75),
        ("fab", "FAB", 100, 5, 0, 0.1, 1.05, 0.9),
        ("square", "Square", 5000, 1, 0.8, False, "margin"),
        ("apgd-t", "APGD", "dlr", 100, 1, 9, False, 0.75),
        ("fab-t", "FAB", 100, 1, 9, 0.1, 1.05, 0.9),
    ]
    assert described(AutoAttack(version="rand")) == [
        ("apgd-ce", "APGD", "cross_entropy", 100, 1, 0, False, 0.75),
        ("apgd-dlr", "APGD", "dlr", 100, 1, 0, False, 0.75),
    ]
    assert AutoAttack(version="rand").draws == 20
    assert AutoAttack().draws == AutoAttack(version="plus").draws == 1
    assert AutoAttack(version="rand", draws=3).draws == 3


def test_all_parts_work_under_the_same_threat():
    threat = Threat(norm="l2", eps=0.7, box=(-1.0, 2.0))
    assert {part.threat for _, part in AutoAttack(threat=threat, version="plus").suite()} == {threat}


@pytest.fixture(scope="module")
def case(nets):
    """A network that some inputs withstand, and one that is wrong about the first of them."""
    model = nets.conv(seed=3, classes=6)
    x = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        model[5].weight *= 8
        model[5].bias -= model(x).mean(0)
        y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 6
    return model, x, y


SMALL = {"steps": 8, "queries": 25}


@pytest.mark.representatives(version=["standard"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.1), ("l1", 0.35)])
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_each_part_takes_over_what_stood_so_far(case, norm, eps, version):
    model, x, y = case
    attack = AutoAttack(threat=Threat(norm=norm, eps=eps), version=version, **SMALL)
    results = [attack(model, x, y, search=search) for search in ("full", "first")]
    for result in results:
        assert [stage.name for stage in result.stages] == [name for name, _ in attack.suite()]
        standing = 15  # one was wrong
        for stage in result.stages:
            assert stage.entered == standing
            standing -= stage.successes
        assert standing == int((~result.success).sum())
        assert 0 < standing < 15
        assert torch.equal(result.x_adv[~result.success], x[~result.success])
        assert torch.equal(result.x_adv[0], x[0])
        assert attack.threat.contains(result.x_adv, x).all()
        assert torch.equal(model(result.x_adv).argmax(1) != y, result.success)
        for name in ("forwards", "backwards"):
            spent = sum(getattr(stage, name) for stage in result.stages)
            assert 0 <= int(getattr(result, name).sum()) - spent <= 2 * 16  # beside the parts: clean, verdict
    assert torch.equal(results[0].success, results[1].success)


def test_the_bill_of_an_input_that_withstands_everything(nets):
    """With C classes: 1 + one run of apgd-ce, C - 1 targets of apgd-t and of fab-t, and square."""
    model = nn.Sequential(nets.conv(seed=3, classes=6), Fortress())
    x = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    result = AutoAttack(threat=Threat(eps=0.01), **SMALL)(model, x, torch.zeros(3).long(), search="first")
    per_input = {stage.name: (stage.forwards // 3, stage.backwards // 3) for stage in result.stages}
    assert per_input == {
        "apgd-ce": (8 + 1 + 1, 8),
        "apgd-t": (5 * (8 + 1 + 1) + 1, 5 * 8),
        "fab-t": (5 * (8 + 1) + 1, 5 * 8),
        "square": (25 + 1 + 1, 0),
    }
    assert not result.success.any()


class Fortress(nn.Module):
    """The first class wins by so much that nothing reaches it."""

    def forward(self, z):
        return z + torch.tensor([60.0] + [0.0] * (z.shape[1] - 1))


def test_it_is_as_strong_as_each_of_its_parts(case):
    model, x, y = case
    threat = Threat(eps=0.02)
    whole = AutoAttack(threat=threat, **SMALL)(model, x, y).success
    first = AutoAttack(threat=threat, parts=["apgd-ce"], **SMALL)(model, x, y).success
    assert (whole | ~first).all()
    assert whole.sum() > first.sum()


def test_parts_of_ones_own_in_ones_own_order(case):
    model, x, y = case
    attack = AutoAttack(threat=Threat(eps=0.005), parts=["square", "fab", "apgd-dlr"], targets=2, restarts=2, **SMALL)
    assert [stage.name for stage in attack(model, x, y).stages] == ["square", "fab", "apgd-dlr"]
    assert [part.restarts for _, part in attack.suite()] == [1, 2, 2]
    assert AutoAttack(parts="fab-t", targets=2).suite()[0][1].targets == 2
    assert AutoAttack(parts="fab-t") == AutoAttack(parts=("fab-t",))


def test_an_input_fares_as_alone(case):
    model, x, y = case
    attack = AutoAttack(threat=Threat(eps=0.02), **SMALL)
    whole, ids = attack(model, x, y, search="first"), torch.arange(16)
    for part in (slice(3, 4), slice(5, 11)):
        assert torch.equal(attack(model, x[part], y[part], ids=ids[part]).success, whole.success[part])


def test_all_parts_lead_to_the_target(nets):
    """Two of the other classes can be reached and one cannot."""
    weight = torch.zeros(4, 9)
    weight[:3] = torch.eye(3).repeat_interleave(3, 1)
    model = nets.linear(weight, torch.tensor([0.0, 0.0, 0.0, -40.0]))
    x = torch.full((6, 9), 0.5)
    x[:, :3] = 0.55
    target = torch.tensor([1, 2, 3, 1, 2, 3])
    for part in ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"):
        attack = AutoAttack(threat=Threat(eps=0.1), parts=[part], steps=10, queries=150)
        result = attack(model, x, torch.zeros(6).long(), target=target)
        assert result.success.tolist() == [True, True, False] * 2
        assert torch.equal(model(result.x_adv).argmax(1)[result.success], target[result.success])


@pytest.mark.parametrize("logits", [1, 2])
def test_two_classes_are_enough(nets, logits):
    weight = torch.tensor([[0.5, -1.0, 0.25, 1.0]])
    model = nets.linear(weight if logits == 1 else torch.cat([-weight / 2, weight / 2]))
    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    y = (model(x).squeeze(1) > 0).long() if logits == 1 else model(x).argmax(1)
    lead = (x @ weight[0]).abs()
    with pytest.warns(UserWarning, match="DLR needs 4 classes"):
        result = AutoAttack(threat=Threat(eps=0.1, box=(-1.0, 2.0)), **SMALL)(model, x, y)
    assert torch.equal(result.success, lead < 0.1 * weight.abs().sum())
    assert 0 < result.success.sum() < 8


class Noisy(nn.Module):
    """Logits that shake; without the shaking the first class wins by 1, and at the edge of the threat loses by 0.2."""

    def forward(self, x):
        z = x.flatten(1).mean(1) + 0.05 * torch.randn(len(x))
        return torch.stack([torch.zeros(len(x)), z, z - 1, z - 2], 1) + torch.tensor([1.0, 0.0, 0.0, 0.0])


def test_rand_asks_each_question_many_times():
    x = torch.zeros(3, 6)
    attack = AutoAttack(threat=Threat(eps=1.2, box=(0.0, 2.0)), version="rand", steps=4)
    result = attack(Noisy(), x, torch.zeros(3).long(), search="first")
    assert result.success.all()
    assert (result.forwards % 20 == 0).all()
    weak = AutoAttack(threat=Threat(eps=0.5, box=(0.0, 2.0)), version="rand", steps=4)
    standing = weak(Noisy(), x, torch.zeros(3).long(), search="first")
    assert not standing.success.any()
    assert standing.stages[0].backwards == 3 * 20 * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": "fast"}, "version must be one of standard, plus, rand; got 'fast'"),
        ({"parts": ["apgd"]}, "there is no part 'apgd'; did you mean 'apgd-"),
        ({"parts": []}, "parts must be names, one or more of apgd-ce"),
        ({"parts": 3}, "parts must be names, one or more of apgd-ce"),
        ({"parts": [3]}, "there is no part 3"),
        ({"targets": -1}, "targets must be a whole number of 0 or more"),
        ({"draws": -1}, "draws must be a whole number of 0 or more"),
        ({"queries": 0}, "queries must be a whole number"),
        ({"steps": 0}, "steps must be a whole number of 1 or more"),
        ({"threat": Threat(eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        AutoAttack(**settings)
