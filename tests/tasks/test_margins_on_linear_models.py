"""Default attacks of tasks beside classification, against the exact answer on linear models."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from buttress import losses
from buttress.attacks import APGD, DDN, FGSM, FMN, PGD
from buttress.tasks import MultiLabel, Ordinal, Regression
from buttress.threat import Threat

FEATURES, N = 32, 40


def linear(outputs, seed=0):
    """The network, its weights (K, D), inputs (N, D) and what it says of them."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, FEATURES, generator=generator, dtype=torch.float64)
    x = torch.rand(N, FEATURES, generator=generator, dtype=torch.float64)
    return (lambda points: points @ weight.T), weight, x, x @ weight.T


def smallest_linf(rows, distances):
    """The least ||d||_inf with rows d >= distances, by linear programming."""
    identity, ones = np.eye(FEATURES), np.ones((FEATURES, 1))
    below = np.block([[-rows, np.zeros((len(rows), 1))], [identity, -ones], [-identity, -ones]])
    bounds = [(None, None)] * FEATURES + [(0, None)]
    limits = np.r_[-distances, np.zeros(2 * FEATURES)]
    return linprog(np.eye(FEATURES + 1)[-1], A_ub=below, b_ub=limits, bounds=bounds).x[-1]


def found(attack, eps, model, x, y, task):
    threat = Threat(eps=eps, box=None)
    return int(attack.within(threat)(model, x, y, task=task, search="first").success.sum())


def test_of_many_labels_the_nearest_is_found():
    """Label k is reached at eps |w_k|; the sum over labels moves all of them, and loses a third of the inputs."""
    model, weight, x, z = linear(20)
    y, task = (z > 0).long(), MultiLabel()
    exact = (z.abs() / weight.abs().sum(1)).amin(1)
    eps = float(exact.quantile(0.8))
    reached = int((exact < eps).sum())
    for attack in (PGD(steps=20), APGD(steps=20)):
        assert found(attack, eps, model, x, y, task) >= 0.96 * reached
    assert found(PGD(steps=20, loss="binary_cross_entropy"), eps, model, x, y, task) < 0.8 * reached


@pytest.mark.parametrize("attack", [DDN(steps=200), FMN(steps=200)], ids=["ddn", "fmn"])
def test_the_smallest_perturbation_in_l2(attack):
    model, weight, x, z = linear(20)
    exact = (z.abs() / weight.norm(dim=1)).amin(1)
    threat = Threat(norm="l2", eps=float("inf"), box=(-1.0, 2.0))
    result = attack.within(threat)(model, x, (z > 0).long(), task=MultiLabel())
    assert result.success.all()
    assert 0.999 < float((result.distance / exact).median()) < 1.02


def test_all_labels_wrong():
    """A convex problem, of which steps of signs find most and those that adapt nearly all."""
    model, weight, x, z = linear(6)
    y, task = (z > 0).long(), MultiLabel(wrong="all")
    signs = 2 * y - 1
    exact = np.array(
        [smallest_linf((-s[:, None] * weight).numpy(), (s * r).numpy()) for s, r in zip(signs, z, strict=True)]
    )
    eps = 1.02 * float(np.quantile(exact, 0.7))
    reached = int((exact < eps).sum())
    assert found(APGD(steps=100), eps, model, x, y, task) >= 0.8 * reached
    assert found(PGD(steps=50), eps, model, x, y, task) >= 0.65 * reached


def test_the_least_label_alone_would_find_fewer():
    model, weight, x, z = linear(6)
    y, task = (z > 0).long(), MultiLabel(wrong="all")

    def least(output, truth):
        return losses.label_margins(output, truth).amin(1)

    eps = 1.2 * float((z.abs() / weight.abs().sum(1)).amax(1).median())
    assert found(PGD(steps=20), eps, model, x, y, task) > found(PGD(steps=20, loss=least), eps, model, x, y, task)


def test_classes_beyond_the_tolerance():
    """The nearest of the classes beyond that beats each class within."""
    model, weight, x, z = linear(6)
    y, task = z.argmax(1), Ordinal(tolerance=1)
    exact = []
    for row, own in zip(z, y.tolist(), strict=True):
        within = [k for k in range(6) if abs(k - own) <= 1]
        exact.append(
            min(
                smallest_linf((weight[far] - weight[within]).numpy(), (row[within] - row[far]).numpy())
                for far in set(range(6)) - set(within)
            )
        )
    eps = 1.01 * float(np.quantile(exact, 0.7))
    reached = int((np.array(exact) < eps).sum())
    margin, entropy = (found(PGD(steps=20, loss=loss), eps, model, x, y, task) for loss in (None, "cross_entropy"))
    assert margin >= 0.96 * reached
    assert entropy < margin


def test_of_many_values_the_nearest_is_found():
    """Value k is reached at (tolerance - error) / |w_k|; the mean squared error moves all of them."""
    model, weight, x, z = linear(20)
    y = z + torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).clamp(-3, 3)
    task = Regression(tolerance=3.1)
    exact = ((3.1 - (z - y).abs()) / weight.abs().sum(1)).amin(1)
    eps = float(exact.quantile(0.8))
    reached = int((exact < eps).sum())
    assert found(PGD(steps=20), eps, model, x, y, task) >= 0.96 * reached
    assert found(PGD(steps=20, loss="mse"), eps, model, x, y, task) < 0.8 * reached


def test_one_step_is_exact_where_each_class_sees_inputs_of_its_own():
    """Then all logits can be moved at once, which a step that serves two of them alone would not."""
    weight = torch.zeros(5, 15, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for k in range(5):
        weight[k, 3 * k : 3 * k + 3] = torch.randn(3, generator=generator, dtype=torch.float64)
    x = torch.randn(200, 15, generator=generator, dtype=torch.float64)
    z, y, reach = x @ weight.T, (x @ weight.T).argmax(1), weight.abs().sum(1)
    near = (torch.arange(5) - y[:, None]).abs() <= 1
    eps = 0.3
    beyond, within = ((z + eps * reach).masked_fill(near, -torch.inf), (z - eps * reach).masked_fill(~near, -torch.inf))
    result = FGSM(threat=Threat(eps=eps, box=None))(lambda points: points @ weight.T, x, y, task=Ordinal())
    possible = beyond.amax(1) > within.amax(1)
    assert 0 < int(result.success.sum()) <= int(possible.sum())
    assert int(result.success.sum()) >= 0.97 * int(possible.sum())
