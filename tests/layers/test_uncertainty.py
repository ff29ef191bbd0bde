"""Propagated covariances and errors against closed forms."""

import math

import pytest
import torch
from torch.func import jacrev

from buttress import models
from buttress.errors import UserError
from buttress.layers.uncertainty import (
    error_probabilities,
    jacobian,
    propagated_covariance,
    relative_error,
    sample_outputs,
    sampling_error,
)
from buttress.models.blocks.snode_problems import direct, input_sensitivity
from buttress.random import Random


def phi(value):
    return 0.5 * math.erfc(-value / math.sqrt(2))


def test_the_jacobian_of_a_network(nets):
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(5, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out, found = jacobian(model, x)
    torch.testing.assert_close(out, model(x).detach(), rtol=0, atol=0)
    wanted = torch.stack([jacrev(lambda p: model(p[None])[0])(one).flatten(1) for one in x])
    torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-13)


def test_of_a_standalone_ode_it_is_what_the_sensitivity_problem_gives():
    net = models.create("snode", seed=0, classes=3, image_size=4, time=1.0, resolution=10).double()
    x = torch.rand(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = input_sensitivity(net, direct(net, net.encode(x)))
    torch.testing.assert_close(jacobian(net, x)[1], -whole[:, :3], rtol=0, atol=1e-13)  # a pixel darkens the state


def test_a_linear_map():
    weight = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]], dtype=torch.float64)
    variance = torch.tensor([0.5, 0.25, 2.0], dtype=torch.float64)
    _, matrix = jacobian(lambda z: z @ weight.T, torch.ones(4, 3, dtype=torch.float64))
    wanted = torch.tensor([[1.5, -0.5], [-0.5, 18.25]], dtype=torch.float64)
    torch.testing.assert_close(propagated_covariance(matrix, variance), wanted.expand(4, 2, 2), rtol=0, atol=1e-14)


def test_a_function_without_a_gradient():
    with pytest.raises(UserError, match="has no gradient"):
        jacobian(lambda z: z.detach(), torch.ones(1, 2))


def test_the_probability_of_an_error_between_two_classes():
    covariance = torch.tensor([[[1.0, 0.5], [0.5, 2.0]]], dtype=torch.float64)  # of the lead: 1 + 2 - 1 = 2
    for y, lead in ((0, 1.5), (1, -1.5)):
        least, most = error_probabilities(torch.tensor([[2.0, 0.5]]), covariance, torch.tensor([y]))
        assert float(least) == float(most) == pytest.approx(phi(-lead / math.sqrt(2)), rel=1e-12)


def test_several_rivals_and_certain_ones():
    logits = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 4.0], [1.0, 1.0, 0.0]])
    covariance = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    covariance[1:] = 0
    least, most = error_probabilities(logits, covariance, torch.tensor([0, 0, 0]))
    rivals = [phi(-2 / math.sqrt(2)), phi(-3 / math.sqrt(2))]
    assert least.tolist() == pytest.approx([max(rivals), 1.0, 1.0])  # without noise: wrong, and a tie
    assert most.tolist() == pytest.approx([sum(rivals), 1.0, 1.0])


def test_samples_of_a_linear_map_agree():
    weight = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]])
    x, y = torch.zeros(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
    std = torch.tensor([0.5, 0.2, 0.1])
    function = lambda z: z @ weight.T + torch.tensor([0.3, 0.0])  # noqa: E731
    seen = sample_outputs(function, x, y, std, Random(0, torch.arange(6)), 4000)
    wanted = propagated_covariance(weight.expand(6, 2, 3), std.square())
    error = relative_error(seen.covariance, wanted)
    expected = sampling_error(wanted, 4000)
    assert float(expected[0]) == pytest.approx(math.sqrt((1 + 0.54**2 / (0.41**2 + 0.13**2 + 2 * 0.08**2)) / 3999))
    assert (error < 3 * expected).all()
    assert float(error.square().mean().sqrt()) == pytest.approx(float(expected[0]), rel=0.6)
    assert (seen.shift.abs() < 4 * math.sqrt(0.41 / 4000)).all()
    lost = phi(-0.3 / math.sqrt(0.41 + 0.13 + 2 * 0.08))
    for share, label in zip(seen.wrong.tolist(), y.tolist(), strict=True):
        wanted_share = lost if label == 0 else 1 - lost
        assert share == pytest.approx(wanted_share, abs=4 * math.sqrt(lost * (1 - lost) / 4000))


def test_samples_by_hand():
    random = Random(5, torch.tensor([3, 9]))
    noise = torch.stack([random.normal((2,)) for _ in range(7)]).double()
    x = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    seen = sample_outputs(lambda z: z, x, torch.tensor([0, 1]), torch.tensor(0.5), Random(5, torch.tensor([3, 9])), 7)
    for row in range(2):
        torch.testing.assert_close(seen.covariance[row], (0.5 * noise[:, row]).T.cov(), rtol=0, atol=1e-6)
        torch.testing.assert_close(seen.shift[row], 0.5 * noise[:, row].mean(0), rtol=0, atol=1e-6)
    points = x + 0.5 * noise.float()
    assert seen.wrong.tolist() == pytest.approx([(points[:, r].argmax(1) != r).double().mean().item() for r in (0, 1)])


def test_what_does_not_move_has_no_relative_error():
    nothing = torch.zeros(1, 2, 2, dtype=torch.float64)
    assert relative_error(nothing, nothing).isnan().all()
    assert sampling_error(nothing, 10).isnan().all()
