"""DeepFool: what one step is, what it costs, and where there is no way."""

import math

import pytest
import torch

from buttress.attacks.minimum_norm.deepfool import DeepFool
from buttress.threat import Threat


def test_on_a_linear_model_one_step_is_the_whole_attack(nets):
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0], [-2.0, 1.0, 0.0]], dtype=torch.float64)
    x, y = torch.tensor([[1.0, 0.2, 0.3]], dtype=torch.float64), torch.tensor([0])
    attack = DeepFool(threat=Threat(norm="l2", eps=9.0, box=None))
    result = attack(nets.linear(weight), x, y)
    heights = (x @ weight.T)[0]
    gaps, normals = heights[1:] - heights[0], weight[1:] - weight[0]
    lengths = gaps.abs() / normals.norm(dim=1)
    nearest = int(lengths.argmin())
    way = 1.02 * (lengths[nearest] + 1e-4) * normals[nearest] / normals[nearest].norm()
    torch.testing.assert_close(result.x_adv, x + way[None], rtol=0, atol=1e-12)
    # Clean, one linearisation, the answer that ends it, and the verdict; two rivals have two gradients each time.
    assert result.forwards.tolist() == [4]
    assert result.backwards.tolist() == [4]


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_overshoot_is_taken_of_the_sum_of_the_steps(nets, norm):
    """Against the loop as the paper has it, gradients by autograd, one input at a time."""
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    result = DeepFool(threat=Threat(norm=norm, eps=math.inf), overshoot=0.1)(model, x, y)
    for row in range(4):
        total, point = torch.zeros_like(x[0]), x[row : row + 1]
        for _ in range(50):
            leaf = point.clone().requires_grad_()
            logits = model(leaf)[0]
            if logits.argmax() != y[row]:
                break
            ways = []
            for k in set(range(4)) - {int(y[row])}:
                gap = logits[k] - logits[y[row]]
                (grad,) = torch.autograd.grad(gap, leaf, retain_graph=True)
                dual = grad.norm() if norm == "l2" else grad.abs().sum()
                unit = grad / dual if norm == "l2" else grad.sign()
                ways.append((gap.detach().abs() / dual + 1e-4, unit[0]))
            length, unit = min(ways, key=lambda way: way[0])
            total = total + length * unit
            point = (x[row] + 1.1 * total).clamp(0, 1)[None]
        torch.testing.assert_close(result.x_adv[row], point[0], rtol=0, atol=1e-9)
    assert result.forwards.max() > 4  # one step would have been enough on a linear model


def test_candidates_bound_the_gradients(nets):
    model = nets.conv(seed=3)
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    threat = Threat(norm="l2", eps=math.inf)
    per_step = []
    for candidates in (1, 2, 3, 10, None):
        result = DeepFool(threat=threat, candidates=candidates)(model, x, y)
        assert result.success.all()
        per_step.append((result.backwards / (result.forwards - 2)).tolist())  # less the clean pass and the verdict
    assert per_step == [[1.0] * 4, [2.0] * 4, [3.0] * 4, [3.0] * 4, [3.0] * 4]
    targeted = DeepFool(threat=threat)(model, x, y, target=(y + 1) % 4)
    assert (targeted.backwards <= targeted.forwards - 1).all()


def test_without_slopes_nothing_moves_and_nothing_breaks(nets):
    weight = torch.zeros(3, 4)
    x, y = torch.rand(2, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=torch.long)
    for norm in ("l2", "linf"):
        attack = DeepFool(threat=Threat(norm=norm, eps=math.inf), steps=3)
        result = attack(nets.linear(weight, torch.tensor([2.0, 0.0, 0.0])), x, y)
        assert torch.equal(result.x_adv, x)
        assert not result.success.any()
