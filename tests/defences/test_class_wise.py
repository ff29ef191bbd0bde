"""CFA, FRL and budgets for single examples: their memory by hand, and each objective written out again."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Split
from buttress.defences.awp import AWP
from buttress.defences.base.defence import Batch, Epoch
from buttress.defences.base.memory import ClassCounts
from buttress.defences.base.pretraining import pretrain
from buttress.defences.base.verdicts import judge
from buttress.defences.cfa import CFA
from buttress.defences.frl import FRL, class_weights, multipliers
from buttress.defences.instance_eps import InstanceEps
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.random import derive
from buttress.threat import Threat
from buttress.threat.row_threat import RowThreat
from buttress.training import Optimiser, fit
from buttress.training.batches import Batches

NEAR = {"rtol": 1e-5, "atol": 1e-9}
SGD = Optimiser(name="sgd", lr=0.05, momentum=0.0)


@pytest.fixture
def smooth(nets):
    """Without BatchNorm, whose buffers would differ from pass to pass."""
    return nets.conv(dtype=torch.float64).train()


@pytest.fixture
def small(nets):
    return nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))).train()


def divergence(clean, perturbed):
    p, q = clean.softmax(1), perturbed.softmax(1)
    return (p * (p.log() - q.log())).sum(1)


def negative_log(logits, y):
    return -logits.log_softmax(1).gather(1, y[:, None]).squeeze(1)


# --- counting


def test_counts_of_classes():
    counts = ClassCounts(4)
    counts.note(torch.tensor([True, False, True]), torch.tensor([0, 0, 3]))
    counts.note(torch.tensor([False, True]), torch.tensor([3, 0]))
    share, seen = counts.take()
    assert share.tolist() == pytest.approx([2 / 3, 0, 0, 1 / 2])
    assert seen.tolist() == [True, False, False, True]
    assert counts.take()[1].any().item() is False


def test_verdicts_are_those_of_the_attack(network, images):
    model = network(dropout=0.0)
    pretrain(model, images.train, epochs=8, seed=0, lr=0.01)
    model.double()
    before = copy.deepcopy(model.state_dict())
    attack = PGD(threat=Threat(eps=0.1), steps=3)
    found = judge(model, images.train, attack, 5)
    assert model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    x, y, ids = images.train.take(torch.arange(36))
    right = copy.deepcopy(model).eval()(x.double()).argmax(1) == y
    success = attack(model, x.double(), y, seed=5, ids=ids, search="first").success
    assert torch.equal(found.clean, right)
    assert torch.equal(found.robust, right & ~success)
    assert 0 < found.robust.sum() < found.clean.sum()
    assert torch.equal(judge(model, images.train, None, 5).robust, right)


# --- CFA


def calibrated(images, method="at", **settings):
    defence = CFA(method, threat=Threat(eps=0.1), steps=2, start=1.0, **settings)
    defence.prepare(None, images, 0)
    defence.robust = torch.tensor([0.9, 0.25, 0.0, 0.5])
    defence.seen = torch.tensor([True, True, True, False])
    return defence


def test_budgets_and_weights_follow_the_classes(images):
    assert calibrated(images).eps_shares(1.0).tolist() == pytest.approx([1.4, 0.75, 0.5, 1.0])
    trades = calibrated(images, "trades")
    assert trades.eps_shares(1.0).tolist() == pytest.approx([1.2, 0.55, 0.3, 1.0])
    assert trades.betas(1.0).tolist() == pytest.approx([6 * 1.4, 6 * 0.75, 6 * 0.5, 6.0])
    assert calibrated(images, lambda_eps=0.2).eps_shares(5.0).tolist() == pytest.approx([1.1, 0.45, 0.2, 1.0])
    assert calibrated(images, lambda_eps=0.0).eps_shares(5.0)[2] == 0
    for early in (trades.eps_shares(0.99), trades.betas(0.99) / 6):
        assert torch.equal(early, torch.ones(4))


def test_at_crafts_in_train_mode_and_trades_in_eval_mode(network, images, single, context, passes):
    for method, trains in (("at", True), ("trades", False)):
        model, defence = network(), calibrated(images, method)
        with passes(model) as modes:
            defence.loss(model, single, context(model, single, epoch=1.0))
        assert modes[0] is trains  # of the first step's pass
    with pytest.raises(UserError, match='needs passes that craft in mode "train"'):
        CFA("trades", move_statistics=True)


def test_each_input_is_attacked_with_the_budget_of_its_class(smooth, images, batch, context):
    defence, place = calibrated(images), context(smooth, batch, epoch=1.0)
    share = torch.tensor([1.4, 0.75, 0.5, 1.0])[batch.y]
    loss = defence.loss(smooth, batch, place).value
    x_adv = place.craft(defence.attack, scale=share)
    sizes = (x_adv - batch.x).abs().amax((1, 2, 3))
    torch.testing.assert_close(sizes, 0.1 * share.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(loss, negative_log(smooth(x_adv), batch.y).mean(), **NEAR)


def test_the_trades_form(smooth, images, batch, context):
    defence, place = calibrated(images, "trades", beta=3.0), context(smooth, batch, epoch=1.0)
    x_adv = place.craft(defence.attack, scale=torch.tensor([1.2, 0.55, 0.3, 1.0])[batch.y])
    assert (defence.attack.loss, defence.attack.start) == ("kl", "normal")
    beta = 3.0 * torch.tensor([1.4, 0.75, 0.5, 1.0], dtype=torch.float64)[batch.y]
    clean, perturbed = smooth(batch.x), smooth(x_adv)
    expected = (negative_log(clean, batch.y) + beta * divergence(clean, perturbed)) / (1 + beta)
    torch.testing.assert_close(defence.loss(smooth, batch, place).value, expected.mean(), **NEAR)


def test_uncalibrated_it_is_trades_over_1_plus_beta(smooth, images, batch, context):
    defence = CFA("trades", threat=Threat(eps=0.1), steps=2, beta=3.0)
    defence.prepare(smooth, images, 0)
    base = TRADES(threat=Threat(eps=0.1), steps=2, beta=3.0)
    values = [d.loss(smooth, batch, context(smooth, batch)).value for d in (defence, base)]
    torch.testing.assert_close(4 * values[0], values[1], rtol=1e-6, atol=0)


def test_the_robust_accuracy_of_an_epoch_is_counted_by_class(small, images, train):
    """One epoch by a loop of its own: what is right at the crafted points, before each update."""
    by_hand, attack = copy.deepcopy(small), PGD(threat=Threat(eps=0.1), steps=2)
    right, count = torch.zeros(4), torch.zeros(4)
    for index, part in enumerate(Batches(images, 12, 3, torch.device("cpu")).epoch(0)):
        x_adv = attack.craft(by_hand, part.x, part.y, seed=derive(3, "step", index), ids=part.ids)
        logits = by_hand(x_adv)
        for hit, k in zip((logits.argmax(1) == part.y).tolist(), part.y.tolist(), strict=True):
            right[k] += hit
            count[k] += 1
        slopes = torch.autograd.grad(F.cross_entropy(logits, part.y), list(by_hand.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(by_hand.parameters(), slopes, strict=True):
                parameter -= 0.05 * slope
    defence = CFA(threat=Threat(eps=0.1), steps=2)
    row = train(small, defence, epochs=1, optimiser=SGD).history[-1]
    torch.testing.assert_close(defence.robust, right / count)
    assert defence.seen.all()
    assert row["worst class, training"] == pytest.approx(float((right / count).min()))


def test_a_class_that_did_not_come_keeps_its_figure(images):
    defence = calibrated(images)
    defence.counts.note(torch.tensor([True, False]), torch.tensor([1, 1]))
    epoch = Epoch(nn.Identity(), images, 1, 1, 0, {})
    defence.end_epoch(epoch)
    assert defence.robust.tolist() == pytest.approx([0.9, 0.5, 0.0, 0.5])
    assert epoch.figures == {"worst class, training": 0.0}


def test_it_counts_inside_of_a_wrapper(network, images, train):
    defence = CFA(threat=Threat(eps=0.1), steps=1, start=1.0)
    train(network(), AWP(defence), epochs=2)
    assert defence.seen.all()


@pytest.mark.parametrize(
    "wrong", [{"method": "mart"}, {"lambda_eps": -0.1}, {"lambda_beta": math.inf}, {"beta": -1.0}, {"start": -1.0}]
)
def test_cfa_refuses(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        CFA(**wrong)


@pytest.mark.parametrize("defence", [CFA(), FRL(), InstanceEps()])
def test_without_the_data_there_is_no_memory(defence, smooth, batch, context):
    with pytest.raises(UserError, match="call prepare before loss"):
        defence.loss(smooth, batch, context(smooth, batch))


# --- FRL


def test_multipliers_of_given_errors():
    errors = torch.tensor([0.5, 0.2, 0.1, 0.0])
    found = multipliers(torch.tensor([0.02, 0.0, 0.01, 0.0]), errors, 0.2, 0.05, 0.1)
    assert found.tolist() == pytest.approx([0.02 + 0.05 * 0.2, 0.0, 0.0, 0.0], abs=1e-7)
    large = multipliers(torch.tensor([0.6, 0.2, 0.0, 0.0]), torch.full((4,), 0.3), 0.2, 0.05, 0.1)
    assert large.tolist() == pytest.approx([0.375, 0.125, 0.0, 0.0], abs=1e-7)  # sum 0.8 scaled to 0.5


def test_weights_of_ten_classes_are_the_authors():
    multiplier = torch.zeros(10)
    assert torch.allclose(class_weights(multiplier), torch.full((10,), 0.1))
    multiplier[3], multiplier[7] = 0.3, 0.1
    expected = [0.1 + 0.9 * m - 0.1 * (0.4 - m) for m in multiplier.tolist()]
    assert class_weights(multiplier).tolist() == pytest.approx(expected)
    assert float(class_weights(multiplier).sum()) == pytest.approx(1)


def test_verdicts_move_both_multipliers_and_the_margin(images):
    """Two inputs a class; natural errors 1, 0, 0, 1/2 and boundary errors 0, 1/2, 0, 0."""
    defence = with_room(FRL(remargin=True, remargin_rate=0.5, tolerance=0.1), images)
    y = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    clean = torch.tensor([0, 0, 1, 1, 1, 1, 0, 1]).bool()
    robust = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1]).bool()
    defence.adjust(y, clean, robust)
    assert defence.natural.tolist() == pytest.approx([0.05 * (1 - 0.375 - 0.1), 0, 0, 0.05 * (0.5 - 0.375 - 0.1)])
    assert defence.boundary.tolist() == pytest.approx([0, 0.1 * (0.5 - 0.125 - 0.1), 0, 0])
    assert defence.eps_shares().tolist() == pytest.approx([0.98, math.exp(2 * 0.5 * 0.275), 0.98, 0.98])
    for _ in range(49):
        defence.adjust(y, clean, robust)
    assert float(defence.natural.sum()) == pytest.approx(0.5)
    assert float(defence.margin[1]) == pytest.approx(50 * 0.5 * 0.275)  # itself without an end, as released
    assert float(defence.eps_shares()[1]) == pytest.approx(3)


def with_room(defence, images):
    """Ready for its classes, without the first measurement."""
    defence._make(len(images.classes))
    return defence


@pytest.mark.parametrize(("settings", "tolerance"), [({}, 0.1), ({"remargin": True}, 0.07)])
def test_the_released_rates_and_tolerances(settings, tolerance, images):
    defence = with_room(FRL(**settings), images)
    y, right = torch.arange(4).repeat_interleave(10), torch.ones(40).bool()
    clean = right.clone()
    clean[:5] = False  # natural errors 1/2, 0, 0, 0
    robust = clean.clone()
    robust[10:18] = False  # boundary errors 0, 4/5, 0, 0
    defence.adjust(y, clean, robust)
    assert float(defence.natural[0]) == pytest.approx(0.05 * (0.5 - 0.125 - tolerance))
    assert float(defence.boundary[1]) == pytest.approx(0.1 * (0.8 - 0.2 - tolerance))
    assert float(defence.margin[1]) == pytest.approx(0.2 * (0.8 - 0.2 - tolerance))


def test_a_class_without_inputs_counts_as_the_overall_one(images):
    defence = with_room(FRL(tolerance=0.0), images)
    defence.adjust(torch.tensor([0, 1]), torch.tensor([False, True]), torch.tensor([False, True]))
    assert defence.natural.tolist() == pytest.approx([0.05 * 0.5, 0, 0, 0])


@pytest.mark.parametrize("remargin", [False, True])
def test_the_objective_of_frl(remargin, smooth, images, batch, context):
    defence = with_room(FRL(threat=Threat(eps=0.1), steps=2, remargin=remargin), images)
    place = context(smooth, batch)
    plain = TRADES(threat=Threat(eps=0.1), steps=2, beta=1.5).loss(smooth, batch, place).value
    if not remargin:
        torch.testing.assert_close(defence.loss(smooth, batch, place).value, plain, **NEAR)
    defence.natural, defence.boundary = torch.tensor([0.3, 0.1, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.2, 0.0])
    defence.margin = torch.tensor([0.0, 0.2, 0.0, 0.0])
    first = torch.tensor([0.45, 0.25, 0.15, 0.15], dtype=torch.float64)[batch.y]
    second = torch.tensor([0.2, 0.2, 0.4, 0.2], dtype=torch.float64)[batch.y]
    share = torch.tensor([1.0, math.exp(0.4), 1.0, 1.0])[batch.y]
    x_adv = place.craft(defence.attack, scale=share if remargin else None)
    clean, perturbed = smooth(batch.x), smooth(x_adv)
    natural, boundary = negative_log(clean, batch.y), divergence(clean, perturbed)
    expected = (first * natural).sum() / first.sum() + 1.5 * (second * boundary).sum() / second.sum()
    torch.testing.assert_close(defence.loss(smooth, batch, place).value, expected, **NEAR)


def test_the_validation_split_is_judged_before_each_epoch(network, images):
    """By PGD in 20 steps of eps / 4: once by `prepare`, and after each epoch for the next one."""
    model, defence = network(), FRL(threat=Threat(eps=0.1), steps=2)
    other, attack = with_room(FRL(), images), PGD(threat=Threat(eps=0.1), steps=20, step_size=0.025)
    defence.prepare(model, images, 5)
    first = judge(model, images.val, attack, derive(5, "frl"))
    other.adjust(first.y, first.clean, first.robust)
    assert defence.natural.sum() > 0
    assert torch.equal(defence.natural, other.natural)
    epoch = Epoch(model, images, 1, 1, 11, {})
    defence.end_epoch(epoch)
    found = judge(model, images.val, attack, derive(11, "frl"))
    other.adjust(found.y, found.clean, found.robust)
    assert torch.equal(defence.natural, other.natural)
    assert torch.equal(defence.boundary, other.boundary)
    worst = min(float(found.robust[found.y == k].float().mean()) for k in range(4))
    assert epoch.figures["worst class, validation"] == worst


@pytest.mark.parametrize(
    "wrong", [{"beta": -1.0}, {"natural_rate": -1.0}, {"tolerance": math.nan}, {"validation_steps": 0}]
)
def test_frl_refuses(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FRL(**wrong)


# --- budgets of single examples


def test_each_example_is_attacked_within_its_own_budget(smooth, images, batch, context):
    defence = InstanceEps(Threat(eps=0.2), steps=3)
    defence.prepare(smooth, images, 0)
    rows = torch.arange(8)
    own = Batch(batch.x, batch.y, images.train.ids[rows])
    defence.shares[rows] = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0, 1.3, 1.7, 2.0])
    place = context(smooth, own)
    loss = defence.loss(smooth, own, place)
    x_adv = place.craft(defence.attack, scale=defence.shares[rows])
    assert RowThreat(eps=0.2, scale=defence.shares[rows]).contains(x_adv, own.x).all()
    sizes = (x_adv - own.x).abs().amax((1, 2, 3))
    torch.testing.assert_close(sizes, 0.2 * defence.shares[rows].double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.value, F.cross_entropy(smooth(x_adv), own.y), **NEAR)
    assert float(loss.logs["share of eps"]) == pytest.approx(float(defence.shares[rows].mean()))


class Always(nn.Module):
    """Sees class 0 while the mean of an input's pixels stays below a half."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        over = self.weight * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-over, over, over - 9, over - 9], 1)


def test_budgets_rise_stay_and_fall(images):
    """Inputs at 0.5 - d fall at budget d: with eps 0.1 and gamma a half, at shares of 1.6, 1.2 and 0.4."""
    x = torch.full((36, 1, 6, 6), 0.5) - torch.tensor([0.16, 0.12, 0.04]).repeat(12).view(36, 1, 1, 1)
    data = replace(images, train=Split(x, torch.zeros(36, dtype=torch.int64), images.train.ids))
    defence = InstanceEps(Threat(eps=0.1), steps=5, gamma=0.5, smoothing=0.2, most=1.15)
    still = Optimiser(name="sgd", lr=1e-9, momentum=0.0)
    settings = {"batch_size": 12, "seed": 3, "validate_with": "none", "optimiser": still}
    history = fit(Always(), data, defence, epochs=1, **settings).history
    assert defence.shares.tolist() == pytest.approx([1.1, 1.0, 0.9] * 12)
    assert history[-1]["mean eps"] == pytest.approx(0.1)
    fit(Always(), data, defence, epochs=2, **settings)
    assert defence.shares.tolist() == pytest.approx([1.15, 1.0, 0.8] * 12)  # from the start again; 1.2 is over the end


def test_budgets_rest_during_the_warmup(network, images, train):
    defence = InstanceEps(Threat(eps=0.1), steps=1, warmup=0.9)
    train(network(), defence, epochs=1)
    assert torch.equal(defence.shares, torch.ones(36))
    train(network(), defence, epochs=2)
    assert not torch.equal(defence.shares, torch.ones(36))


@pytest.mark.parametrize("wrong", [{"gamma": 0.0}, {"smoothing": 1.5}, {"most": 0.5}, {"warmup": -1.0}])
def test_budgets_refuse(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        InstanceEps(**wrong)
