"""The correction of the last layer, against every place that it could have taken."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Dataset, Split
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.base.verdicts import judge
from buttress.defences.class_corrected import ClassCorrected, last_linear
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.models.wrapping.normalized import Normalized
from buttress.random import derive
from buttress.threat import Threat

EPS = 0.05
BASE = AdversarialTraining(PGD(threat=Threat(eps=EPS), steps=5))


@pytest.fixture(scope="module")
def line():
    """60 numbers in [0, 1]: class 0 around 0.35, class 1 around 0.65, as all three splits."""
    random = torch.Generator().manual_seed(2)
    y = torch.arange(60) % 2
    x = (0.35 + 0.3 * y + 0.13 * torch.randn(60, generator=random)).clamp(0, 1)[:, None]
    splits = [Split(x, y, torch.arange(60) + start) for start in (0, 60, 120)]
    return Dataset("line", *splits, ("low", "high"), (0.0, 1.0), "made in this test.")


def biased(nets, bias=3.0):
    """Says "high" where 10 x + ``bias`` > 5."""
    return nets.linear([[-5.0], [5.0]], [2.5 - bias / 2, bias / 2 - 2.5])


def worst(model, data):
    found = judge(model, data.val, PGD(threat=Threat(eps=EPS), steps=10), derive(4, "class-corrected"))
    return min(float(found.robust[found.y == k].float().mean()) for k in range(len(data.classes)))


def brute_force(data):
    """The best worst class of any threshold: below it by more than eps is class 0, above it by more than eps 1."""
    x, y = data.val.x[:, 0], data.val.y
    found = []
    for threshold in torch.linspace(0, 1, 5001):
        low = ((x[y == 0] + EPS).clamp(max=1) < threshold).float().mean()
        high = ((x[y == 1] - EPS).clamp(min=0) > threshold).float().mean()
        found.append(float(torch.minimum(low, high)))
    return max(found)


@pytest.mark.representatives(first_step=[1.0])
@pytest.mark.parametrize("bias", [3.0, 0.7, -1.9])
@pytest.mark.parametrize("first_step", [1.0, 0.3])
def test_biases_of_two_classes_are_the_best(bias, first_step, nets, line):
    model = biased(nets, bias)
    before = worst(model, line)
    weight = model[1].weight.detach().clone()
    ClassCorrected(BASE, first_step=first_step, rounds=30).finish(model, line, 4)
    assert worst(model, line) == pytest.approx(brute_force(line))
    assert worst(model, line) > before
    assert torch.equal(model[1].weight, weight)


def test_norms_are_the_best_of_the_powers(nets, line):
    """Class 1 has a weight four times as long; the biases go with power 1."""
    model = nets.linear([[-1.0], [4.0]], [0.5, -0.5])
    taus, found = (0.0, 0.5, 1.0, 2.0), []
    for tau in taus:
        other = copy.deepcopy(model)
        with torch.no_grad():
            other[1].weight /= other[1].weight.norm(dim=1, keepdim=True) ** tau
        found.append(worst(other, line))
    assert found.index(max(found)) == 2
    ClassCorrected(BASE, kind="norm", taus=taus).finish(model, line, 4)
    assert worst(model, line) == max(found)
    torch.testing.assert_close(model[1].weight, torch.tensor([[-1.0], [1.0]]))


def test_what_cannot_be_bettered_is_left_alone(nets, line):
    for kind in ("bias", "norm"):
        model = nets.linear([[-5.0], [5.0]], [2.5, -2.5])
        split = Split(torch.tensor([[0.1], [0.9]]), torch.tensor([0, 1]), torch.tensor([60, 61]))
        before = copy.deepcopy(model.state_dict())
        ClassCorrected(BASE, kind=kind).finish(model, replace(line, val=split), 4)
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_class_without_validation_inputs_is_no_worst_class(nets, line):
    only = line.val.subset((line.val.y == 1).nonzero().flatten())
    model = biased(nets, -3.0)
    ClassCorrected(BASE).finish(model, replace(line, val=only), 4)
    found = judge(model, only, PGD(threat=Threat(eps=EPS), steps=10), derive(4, "class-corrected"))
    assert found.robust.all()


def test_more_classes_only_get_better(network, images, train):
    for kind in ("bias", "norm"):
        plain = train(network(), BASE, epochs=4).model
        corrected = train(network(), ClassCorrected(BASE, kind=kind), epochs=4).model
        seed = derive(3, "class-corrected")
        shares = []
        for model in (plain, corrected):
            found = judge(model, images.val, PGD(threat=Threat(eps=EPS), steps=10), seed)
            shares.append(min(float(found.robust[found.y == k].float().mean()) for k in range(4)))
        assert shares[1] >= shares[0]
        changed = [
            name for name, value in corrected.state_dict().items() if not torch.equal(value, plain.state_dict()[name])
        ]
        assert set(changed) <= {"7.bias" if kind == "bias" else "7.weight"}


def test_accuracy_is_corrected_where_nothing_attacks(nets, line):
    assert ClassCorrected(Standard())._judge() is None
    assert ClassCorrected(BASE)._judge() == PGD(threat=Threat(eps=EPS), steps=10)
    attack = PGD(threat=Threat(eps=0.2), steps=3)
    assert ClassCorrected(BASE, judge_with=attack)._judge() is attack
    model = biased(nets)
    x, y = line.val.x, line.val.y
    lowest = [min(float((model(x).argmax(1) == y)[y == k].float().mean()) for k in (0, 1))]
    ClassCorrected(Standard()).finish(model, line, 4)
    lowest.append(min(float((model(x).argmax(1) == y)[y == k].float().mean()) for k in (0, 1)))
    assert lowest[1] > lowest[0]


# --- the last layer


def test_the_last_layer_is_the_one_that_gives_the_logits(network, images):
    model = network()
    x = images.val.take(torch.arange(3))[0]
    assert last_linear(model, x) is model[7]
    assert last_linear(Normalized(model, (0.5,), (0.2,)), x) is model[7]
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("top", [nn.Softplus(), nn.Unflatten(1, (2, 4))])
def test_a_network_without_one_is_told_before_training(top, network, images):
    end = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), top)
    model = end if isinstance(top, nn.Softplus) else nn.Sequential(end, nn.Flatten(), nn.Softplus())
    with pytest.raises(UserError, match="not the output of a linear layer"):
        ClassCorrected(BASE).prepare(model, images, 0)


def test_a_last_layer_without_bias_needs_the_norms(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4, bias=False))
    with pytest.raises(UserError, match='use the kind "norm"'):
        ClassCorrected(BASE).prepare(model, images, 0)
    assert ClassCorrected(BASE, kind="norm").prepare(model, images, 0) is images


def test_it_is_made_below_other_wrappers(nets, line):
    model = biased(nets)
    LayerRegularised(ClassCorrected(BASE, rounds=30)).finish(model, line, 4)
    assert worst(model, line) == pytest.approx(brute_force(line))


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "scale"}, {"rounds": 0}, {"first_step": 0.0}, {"validate_on": 0}, {"taus": ()}, {"taus": (-1.0,)}],
)
def test_it_refuses(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        ClassCorrected(**wrong)
