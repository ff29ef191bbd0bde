"""Costs of mistakes, CSA, CSE and the wrapper: matrices by hand, and each objective written out again."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kurtosis
from torch import nn

from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.awp import AWP
from buttress.defences.base.defence import Epoch
from buttress.defences.cost_sensitive.cost_matrix import check_protected, cost_matrix, expected_cost
from buttress.defences.cost_sensitive.csa import CSA
from buttress.defences.cost_sensitive.cse import CSE, l1_minus_l2, min_max_figures
from buttress.defences.cost_sensitive.wrapper import CostSensitive
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.random import derive, generator
from buttress.threat import Threat
from buttress.training import Optimiser
from buttress.training.batches import Batches

NEAR = {"rtol": 1e-5, "atol": 1e-9}
NAMES = ("cat", "dog", "ship", "truck")


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)


def cost_by_hand(logits, y, protected, c):
    """Entry by entry: who is predicted with what probability, and what that mistake costs."""
    total = 0.0
    for row, true in zip(logits.softmax(1), y.tolist(), strict=True):
        for k, share in enumerate(row):
            if k != true:
                total = total + share * (c if k in protected or true in protected else 1.0)
    return total / len(y)


# --- costs


def test_the_matrix():
    expected = torch.tensor([[0.0, 1, 7, 1], [1, 0, 7, 1], [7, 7, 0, 7], [1, 1, 7, 0]])
    assert torch.equal(cost_matrix(4, [2], 7.0), expected)
    assert torch.equal(cost_matrix(4, torch.tensor([2]), 1.0), 1 - torch.eye(4))
    both = cost_matrix(3, [0, 2], 5.0)
    assert torch.equal(both, 5 * (1 - torch.eye(3)))
    assert cost_matrix(3, [1], 5.0, "missed").tolist() == [[0, 5, 1], [1, 0, 1], [1, 5, 0]]
    assert cost_matrix(3, [1], 5.0, "false").tolist() == [[0, 1, 1], [5, 0, 5], [1, 1, 0]]


def test_a_sure_and_right_prediction_costs_nothing_and_a_uniform_one_the_mean():
    costs, y = cost_matrix(4, [1], 10.0), torch.arange(4)
    sure = 1000.0 * F.one_hot(y, 4).double()
    assert torch.equal(expected_cost(sure, y, costs), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(expected_cost(torch.zeros(4, 4), y, costs), costs.mean(0))
    torch.testing.assert_close(costs.mean(0), torch.tensor([12 / 4, 30 / 4, 12 / 4, 12 / 4]))
    surely_wrong = 200.0 * F.one_hot(torch.tensor([1, 0, 3, 2]), 4).double()
    assert expected_cost(surely_wrong, y, costs).tolist() == pytest.approx([10, 10, 1, 1])


def test_c_of_1_is_an_unweighted_cost(batch):
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wrong = 1 - logits.softmax(1).gather(1, batch.y[:, None]).squeeze(1)
    torch.testing.assert_close(expected_cost(logits, batch.y, cost_matrix(4, [3], 1.0)), wrong)


@pytest.mark.parametrize("wrong", [(), (True,), (1.5,)])
def test_no_class_or_no_name_is_refused(wrong):
    with pytest.raises(UserError, match="protected names one class or more"):
        check_protected(wrong, 1.0)


@pytest.mark.parametrize("kind", [CSA, CSE, CostSensitive])
def test_all_look_the_classes_up_before_training(kind, network, images):
    assert kind(protected="2").protected == ("2",)
    with pytest.raises(UserError, match="c must be a finite number of 0 or more"):
        kind(c=-1.0)
    with pytest.raises(UserError, match="mistakes must be one of both, missed, false; got 'all'"):
        kind(mistakes="all")
    with pytest.raises(UserError, match="no class 'wolf'"):
        kind(protected=("wolf",)).prepare(network(), images, 0)


# --- the wrapper


@pytest.mark.parametrize("on", ["clean", "adversarial", "both"])
def test_the_wrapper_adds_the_cost_of_the_bases_own_passes(on, smooth, images, batch, context):
    base = TRADES(threat=Threat(eps=0.05), steps=2)
    wrapped = CostSensitive(base, protected=[1], c=4.0, weight=0.7, on=on)
    wrapped.prepare(smooth, images, 0)
    place = context(smooth, batch)
    loss = wrapped.loss(smooth, batch, place)
    logits = {kind: place.passes[kind].logits for kind in ("clean", "adversarial")}
    expected = base.loss(smooth, batch, context(smooth, batch)).value
    for kind in logits if on == "both" else [on]:
        cost = cost_by_hand(logits[kind], batch.y, [1], 4.0)
        torch.testing.assert_close(loss.logs[f"cost {kind}"], cost.detach(), **NEAR)
        expected = expected + 0.7 * cost
    torch.testing.assert_close(loss.value, expected, **NEAR)


def test_the_wrapper_needs_a_pass(smooth, images, batch, context):
    wrapped = CostSensitive(Standard(), on="adversarial")
    wrapped.prepare(smooth, images, 0)
    with pytest.raises(UserError, match="Standard makes no adversarial pass"):
        wrapped.loss(smooth, batch, context(smooth, batch))


@pytest.mark.parametrize("make", [lambda **k: CSA(pretrain_epochs=0, **k), lambda **k: CSE(penalties=(), **k)])
@pytest.mark.parametrize(("mistakes", "mass"), [("missed", 2 * 3 / 4), ("false", 6 * 1 / 4)])
def test_mistakes_of_one_kind(make, mistakes, mass, smooth, batch, context):
    """What c = 2 adds to c = 1 on uniform answers: 2 inputs are of the class, with 3 wrong quarters; 6 are not."""
    with torch.no_grad():
        smooth[7].weight.zero_()
        smooth[7].bias.zero_()
    values = []
    for c in (1.0, 2.0):
        defence = make(protected=[1], c=c, mistakes=mistakes)
        defence.index = torch.tensor([1])
        values.append(float(defence.loss(smooth, batch, context(smooth, batch)).value.detach()))
    passes = 2 if isinstance(defence, CSA) else 1
    assert values[1] - values[0] == pytest.approx(passes * mass / 8)


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"on": "neither"}])
def test_the_wrapper_refuses(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        CostSensitive(**wrong)


# --- CSA


def csa_value(logits, y, protected, c, weight):
    return F.cross_entropy(logits, y) + weight * cost_by_hand(logits, y, protected, c)


def test_the_objective_and_the_points_that_raise_it(smooth, images, batch, context):
    """With a large cost the sign of its slope differs from that of cross-entropy's, and FGSM follows it."""
    defence = CSA([1], c=30.0, weight=2.0, threat=Threat(eps=0.05), pretrain_epochs=0)
    defence.prepare(smooth, images, 0)
    by_hand = copy.deepcopy(smooth).eval()
    x = batch.x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(csa_value(by_hand(x), batch.y, [1], 30.0, 2.0), x)
    (plain,) = torch.autograd.grad(F.cross_entropy(by_hand(x), batch.y), x)
    assert (slope.sign() != plain.sign()).any()
    x_adv = (batch.x + 0.05 * slope.sign()).clamp(0, 1)
    place = context(smooth, batch)
    torch.testing.assert_close(place.craft(defence.attack), x_adv, rtol=0, atol=1e-12)
    expected = csa_value(smooth(batch.x), batch.y, [1], 30.0, 2.0) + csa_value(smooth(x_adv), batch.y, [1], 30.0, 2.0)
    torch.testing.assert_close(defence.loss(smooth, batch, place).value, expected, **NEAR)


def by_hand_csa(model, data, updates):
    """SGD by its own loop, FGSM in eval mode; a network without BatchNorm."""

    def slopes(value):
        return torch.autograd.grad(value, list(model.parameters()))

    def move(slopes):
        with torch.no_grad():
            for parameter, slope in zip(model.parameters(), slopes, strict=True):
                parameter -= 0.05 * slope

    def fgsm(x, y):
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(csa_value(model(x), y, [1], 10.0, 1.0), x)
        return (x + 0.1 * slope.sign()).clamp(0, 1).detach()

    for epoch in range(2):
        for part in Batches(data, 12, 3, torch.device("cpu")).epoch(epoch):
            clean = slopes(csa_value(model(part.x), part.y, [1], 10.0, 1.0))
            if updates == 2:
                move(clean)
            attacked = slopes(csa_value(model(fgsm(part.x, part.y)), part.y, [1], 10.0, 1.0))
            move(attacked if updates == 2 else [a + b for a, b in zip(clean, attacked, strict=True)])


@pytest.mark.parametrize("updates", [1, 2])
def test_two_updates_a_batch_or_one(updates, nets, images, train):
    model = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))).train()
    expected = copy.deepcopy(model)
    by_hand_csa(expected, images, updates)
    defence = CSA([1], threat=Threat(eps=0.1), updates=updates, pretrain_epochs=0)
    train(model, defence, optimiser=Optimiser(name="sgd", lr=0.05, momentum=0.0))
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-6)


def test_eps_in_standard_deviations_is_not_clipped(nets, images):
    """Two channels of different spread, one input at the box's edge."""
    model = nets.linear(torch.randn(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    defence = CSA(threat=Threat(eps=0.3), space="normalized", pretrain_epochs=0)
    assert defence.attack is None
    assert defence.cost.crafting == 2
    attack = defence._fgsm((0.2, 0.5))
    defence.index = torch.tensor([0])
    x, y = torch.ones(5, 2, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    x_adv = attack.craft(model, x, y)
    start = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(csa_value(model(start), y, [0], 10.0, 1.0), start)
    sizes = torch.tensor([0.3 * 0.2, 0.3 * 0.5], dtype=torch.float64).view(1, 2, 1, 1)
    torch.testing.assert_close(x_adv, x + sizes * slope.sign(), rtol=0, atol=1e-7)
    assert x_adv.max() > 1
    defence.prepare(model, images, 0)
    assert defence.attack.threat.eps == pytest.approx(0.3 * images.std[0])
    assert defence.attack.threat.box is None


def test_before_the_data_are_known_there_is_no_standard_deviation(smooth, batch, context):
    with pytest.raises(UserError, match="prepare"):
        CSA(space="normalized").loss(smooth, batch, context(smooth, batch))


def test_the_network_before_is_trained_with_fgsm(network, images, same):
    model = network(dropout=0.0)
    by_hand, fgsm = copy.deepcopy(model), FGSM(threat=Threat(eps=0.1))
    model.eval()
    CSA(threat=Threat(eps=0.1), pretrain_epochs=2, pretrain_lr=0.01).prepare(model, images, 6)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    adam, seed = torch.optim.Adam(by_hand.parameters(), lr=0.01), derive(6, "csa")
    for epoch in range(2):
        order = torch.randperm(36, generator=generator(seed, "order", epoch))
        x, y, ids = images.train.take(order)
        x_adv = fgsm.craft(by_hand, x, y, seed=6, ids=ids)
        adam.zero_grad()
        (F.cross_entropy(by_hand(x), y) + F.cross_entropy(by_hand(x_adv), y)).backward()
        adam.step()
    same(model.state_dict(), by_hand.state_dict())


def test_one_update_serves_wrappers_that_compare_both_passes(network, images, train):
    rows = [
        train(network(dropout=0.0), wrapper(CSA(updates=updates, pretrain_epochs=1)), epochs=1).history[-1]
        for updates, wrapper in ((1, lambda d: LayerRegularised(d, layers=["2"])), (2, AWP), (2, CostSensitive))
    ]
    assert rows[0]["displacement 2"] > 0
    assert all(math.isfinite(row["loss"]) for row in rows)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"weight": -1.0}, "weight"),
        ({"pretrain_epochs": -1}, "pretrain_epochs"),
        ({"space": "latent"}, "latent"),
        ({"updates": 3}, "updates 1 or 2"),
        ({"space": "normalized", "threat": Threat(norm="l2")}, "linf"),
    ],
)
def test_csa_refuses(wrong, told):
    with pytest.raises(UserError, match=told):
        CSA(**wrong)


# --- CSE


def test_the_penalty_is_0_for_one_weight_alone():
    weight = torch.zeros(2, 3, 3, dtype=torch.float64)
    assert l1_minus_l2(weight) == 0
    weight[1, 2, 0] = -0.7
    assert l1_minus_l2(weight) == 0
    weight[0, 0, 0] = 0.7
    assert float(l1_minus_l2(weight)) == pytest.approx(1.4 - 0.7 * math.sqrt(2))


def test_the_objective_of_cse(smooth, images, batch, context):
    defence = CSE([2], c=5.0, weight=0.1, penalties=(5.0, 0.1), layers=("0", "4"), pretrain_epochs=0)
    defence.prepare(smooth, images, 0)
    value = defence.loss(smooth, batch, context(smooth, batch)).value
    logits = smooth(batch.x)
    expected = F.cross_entropy(logits, batch.y) + 0.1 * cost_by_hand(logits, batch.y, [2], 5.0)
    for penalty, layer in ((5.0, smooth[0]), (0.1, smooth[4])):
        expected = expected + penalty * (layer.weight.abs().sum() - layer.weight.square().sum().sqrt())
    torch.testing.assert_close(value, expected, **NEAR)


def test_the_first_two_convolutions_unless_named(nets):
    model = nets.conv()
    assert list(CSE().kernels(model)) == ["0", "2"]
    assert list(CSE(penalties=(1.0,)).kernels(model)) == ["0"]
    assert list(CSE(penalties=(1.0, 1.0, 1.0)).kernels(model)) == ["0", "2"]
    assert CSE(penalties=()).kernels(nets.linear(torch.ones(2, 4))) == {}
    with pytest.raises(UserError, match=r"no convolution to penalise.*1"):
        CSE().kernels(nets.linear(torch.ones(2, 4)))
    with pytest.raises(UserError, match="no layer '7'"):
        CSE(penalties=(1.0,), layers=("7",)).kernels(model)


def test_the_penalty_raises_kurtosis_and_the_log_tells(network, images, train):
    """The same training with and without it; from equal weights on, 24 steps."""
    found = []
    for penalty in (0.0, 0.5):
        defence = CSE(penalties=(penalty,), pretrain_epochs=0)
        trained = train(network(dropout=0.0), defence, epochs=8)
        found.append(trained.history[-1]["kurtosis 0"])
        weights = trained.model[0].weight.detach().flatten().double().numpy()
        assert found[-1] == pytest.approx(kurtosis(weights, fisher=False))
    assert found[1] > 1.2 * found[0]


def test_a_kernel_without_spread_has_no_kurtosis_to_log(images):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(36, 4))
    epoch = Epoch(model, images, 1, 1, 0, {})
    CSE().end_epoch(epoch)
    assert epoch.figures == {}
    assert math.isnan(min_max_figures(model[0].weight)["kurtosis"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"weight": -1.0}, "weight"),
        ({"penalties": (1.0, -1.0)}, "penalties"),
        ({"layers": ("0",)}, "1 layers need as many penalties; got 2"),
    ],
)
def test_cse_refuses(wrong, told):
    with pytest.raises(UserError, match=told):
        CSE(**wrong)


def test_protecting_a_class_lowers_the_cost_of_mistakes_about_it(network, images, train):
    """On the training inputs, against the same training without a cost."""
    found = []
    for weight in (0.0, 1.0):
        base = AdversarialTraining(PGD(threat=Threat(eps=0.1), steps=2))
        model = train(network(dropout=0.0), CostSensitive(base, protected=[1], weight=weight)).model
        x, y, _ = images.train.take(torch.arange(36))
        with torch.no_grad():
            found.append(float(expected_cost(model(x), y, cost_matrix(4, [1], 10.0)).mean()))
    assert found[1] < found[0]
