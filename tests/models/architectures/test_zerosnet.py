"""Multistep methods against the published table and by hand, and ZeroSNet against networks written out."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from buttress import models
from buttress.attacks.gradient.pgd import PGD
from buttress.errors import UserError
from buttress.models.architectures.zerosnet import MultistepBlock
from buttress.models.blocks.multistep import (
    LEAPFROG,
    OPTIMAL,
    amplification,
    characteristic_roots,
    consistency_order,
    family_parameter,
    is_zero_stable,
    parasitic_modulus,
    three_step,
    two_step,
)
from buttress.models.blocks.multistep import discretisation as scheme_of
from buttress.threat import Threat

TABLE = [  # k, a0, a1, a2, b0, largest parasitic modulus, whether stable
    (-9 / 5, 0.3333, 0.5556, 0.1111, 1.7778, 0.333, True),
    (-3, 0.5, 0.3333, 0.1667, 1.6667, 0.408, True),
    (-1.5, 0.25, 0.6667, 0.0833, 1.8333, 0.614, True),
    (-1.2, 0.125, 0.8333, 0.0417, 1.9167, 0.824, True),
    (-1, 0, 1, 0, 2, 1.0, True),
    (-0.5, -0.75, 2, -0.25, 2.5, 1.883, False),
    (0.4, 2.625, -2.5, 0.875, 0.25, 0.935, True),
    (0.5, 2.25, -2, 0.75, 0.5, 0.866, True),
    (1, 1.5, -1, 0.5, 1, 0.707, True),
    (5, 0.9, -0.2, 0.3, 1.4, 0.548, True),
]


@pytest.mark.parametrize(("k", "a0", "a1", "a2", "b0", "modulus", "stable"), TABLE)
def test_the_family(k, a0, a1, a2, b0, modulus, stable):
    found = three_step(k)
    assert found == pytest.approx((a0, a1, a2, b0), abs=5e-5)
    assert parasitic_modulus(found[:3]) == pytest.approx(modulus, abs=5.1e-4)
    assert is_zero_stable(found[:3]) is stable
    assert consistency_order(found[:3], found[3]) == 2
    assert family_parameter(found) == pytest.approx(k)


def test_stable_for_k_of_at_most_minus_1_or_above_a_third():
    for k in [-(10**e) for e in (6.0, 2.0, 0.5)] + [-1.0 - 1e-6, -1.0, 1 / 3 + 1e-6, 0.35, 2.0, 1e6]:
        assert is_zero_stable(three_step(k)[:3]), k
    for k in (-1 + 1e-6, -0.7, -1 / 3, -0.01, 0.01, 0.3, 1 / 3 - 1e-6, 1 / 3):
        assert not is_zero_stable(three_step(k)[:3]), k


def test_the_parasitic_roots_are_smallest_at_minus_nine_fifths():
    assert three_step(-9 / 5) == pytest.approx(OPTIMAL, abs=1e-15)
    assert characteristic_roots(OPTIMAL[:3]) == pytest.approx([1, -1 / 3, -1 / 3], abs=1e-7)
    grid = [k / 1000 for k in range(-20_000, 20_000, 7) if k]
    moduli = {k: parasitic_modulus(three_step(k)[:3]) for k in grid}
    assert min(moduli, key=moduli.__getitem__) == -9 / 5
    assert moduli.pop(-9 / 5) == pytest.approx(1 / 3, abs=1e-7)
    assert min(moduli.values()) > 1 / 3 + 1e-4


def test_order_three_is_at_minus_a_third_only_and_is_not_stable():
    *a, b0 = three_step(-1 / 3)
    assert consistency_order(a, b0) == 3
    assert not is_zero_stable(a)
    assert consistency_order([1.0], 1.0) == 1  # Euler's
    assert consistency_order([1.0], 2.0) == 0
    assert consistency_order([1, 1, 1], 1) == 0


@pytest.mark.parametrize(
    ("a", "roots", "modulus", "stable"),
    [
        ([1, 0, 0], [1, 0, 0], 0.0, True),
        ([1], [1], 0.0, True),
        ([0, 1, 0], [1, -1, 0], 1.0, True),
        ([2, -1], [1, 1], 1.0, False),  # twice on the circle
        ([3, -3, 1], [1, 1, 1], 1.0, False),
        ([-2, -1, 0], [-1, -1, 0], 1.0, False),  # twice on the circle, and not consistent
        ([0.5, 0, 0], [0.5, 0, 0], 0.5, True),
        ([0, -1], [1j, -1j], 1.0, True),
        ([1, -1, 1], [1, 1j, -1j], 1.0, True),
        ([0, 0, 0, 1], [1, 1j, -1j, -1], 1.0, True),
        ([0, 2, 0, -1], [1, 1, -1, -1], 1.0, False),
    ],
)
def test_the_root_condition(a, roots, modulus, stable):
    found = characteristic_roots(a)
    assert len(found) == len(a)
    for root in roots:
        assert min(abs(root - one) for one in found) < 1e-5
    assert parasitic_modulus(a) == pytest.approx(modulus, abs=1e-7 if len(set(roots)) == len(roots) else 1e-5)
    assert is_zero_stable(a) is stable


def test_the_negative_control_and_two_steps():
    assert parasitic_modulus([1, 1, 1]) == pytest.approx(1.839, abs=5e-4)
    assert not is_zero_stable([1, 1, 1])
    for k in (-0.999, -0.3, 0.0, 0.6, 1.0):
        assert parasitic_modulus(two_step(k)[:3]) == pytest.approx(abs(k))
        assert is_zero_stable(two_step(k)[:3])
    assert not any(is_zero_stable(two_step(k)[:3]) for k in (-1.0, -1.5, 1.001))


def test_what_has_no_roots_is_refused():
    for a in ([], [math.nan, 1.0], [1.0, math.inf]):
        with pytest.raises(UserError, match="has one finite coefficient or more; got"):
            characteristic_roots(a)


def test_amplification_is_the_norm_of_the_product():
    assert amplification([[2.0, 0.0, 0.0]]) == pytest.approx(5**0.5)  # (2, 1) in the first column
    first, second = ([[a, b], [1, 0]] for a, b in ((0.5, 1.5), (-1.0, 0.25)))
    product = torch.tensor(second, dtype=torch.float64) @ torch.tensor(first, dtype=torch.float64)
    assert amplification([[0.5, 1.5], [-1.0, 0.25]]) == pytest.approx(float(torch.linalg.matrix_norm(product, 2)))


def test_of_ordinary_blocks_it_is_the_root_of_3_and_of_unstable_ones_it_grows():
    assert amplification([[1.0, 0.0, 0.0]] * 7) == pytest.approx(3**0.5)
    steps = {k: [three_step(k)[:3]] * 20 for k in (-9 / 5, -0.5)}
    assert amplification(steps[-9 / 5]) < 3
    assert amplification(steps[-0.5]) > 1.883**19


def test_quadruples_that_are_of_no_k():
    assert family_parameter((1, 0, 0, 1)) is None
    assert family_parameter((1, 1, 1, 1)) is None
    assert family_parameter(LEAPFROG) == -1


def block(discretisation: object) -> MultistepBlock:
    made = MultistepBlock([(2, 0)] * 3, 2, 0, scheme_of(discretisation), bottleneck=False, start=False)
    return made.double().eval()


@pytest.mark.parametrize("k", [-9 / 5, -3, -1.2, -1, -0.5, 0.4, 1, 5])
def test_without_f_differences_change_by_the_largest_parasitic_root_a_step(k):
    step = block(k)
    torch.nn.init.zeros_(step.residual[-1].weight)
    random = torch.Generator().manual_seed(0)
    y, *older = (torch.randn(1, 2, 4, 4, generator=random, dtype=torch.float64) for _ in range(3))
    a0, _, a2 = three_step(k)[:3]
    rates = []
    with torch.no_grad():
        for _ in range(200):
            # y + (1 - a0) older + a2 oldest never changes: it is the share of the root 1, which is taken out.
            y = -(1 - a0) * older[0] - a2 * older[1]
            size = torch.linalg.vector_norm(torch.stack([y, *older]))
            y, *older = step(*(state / size for state in (y, *older)))
            rates.append(math.log(torch.linalg.vector_norm(torch.stack([y, *older]))))
    assert math.exp(sum(rates[100:]) / 100) == pytest.approx(parasitic_modulus(three_step(k)[:3]), rel=0.01)


def test_without_f_an_unstable_method_blows_up_and_a_stable_one_does_not():
    grown = {}
    for name in ("opt", "unstable", -0.5, 1):
        step = block(name)
        torch.nn.init.zeros_(step.residual[-1].weight)
        states = (torch.ones(1, 2, 4, 4, dtype=torch.float64), *torch.zeros(2, 1, 2, 4, 4, dtype=torch.float64))
        with torch.no_grad():
            for _ in range(100):
                states = step(*states)
        grown[name] = float(states[0].abs().max())
    assert grown["unstable"] ** 0.01 == pytest.approx(1.839, rel=0.01)
    assert grown[-0.5] ** 0.01 == pytest.approx(1.883, rel=0.01)
    assert max(grown["opt"], grown[1]) < 2


def batch_norm(x: torch.Tensor, layer: torch.nn.BatchNorm2d) -> torch.Tensor:
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)


def f(x: torch.Tensor, layers: torch.nn.Sequential, stride: int) -> torch.Tensor:
    bn1, _, conv1, bn2, _, conv2 = layers
    h = F.conv2d(batch_norm(x, bn1).relu(), conv1.weight, stride=stride, padding=1)
    return F.conv2d(batch_norm(h, bn2).relu(), conv2.weight, padding=1)


def scrambled(**options: object) -> torch.nn.Module:
    model = models.create("zerosnet", channels=1, width=3, classes=4, seed=0, **options).double().eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and not name.endswith(".k"):
                value.add_(0.2 * torch.rand(value.shape, generator=random, dtype=value.dtype))
    return model


def end(model: torch.nn.Module, y: torch.Tensor) -> torch.Tensor:
    return model.fc(batch_norm(y, model.bn).relu().mean((2, 3)))


def images() -> torch.Tensor:
    return torch.rand(2, 1, 14, 14, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_coefficients_1_0_0_1_are_a_residual_network():
    model = scrambled(discretisation=[1, 0, 0, 1], blocks=2)
    y = F.conv2d(images(), model.conv1.weight, padding=1)
    for index, each in enumerate(model.blocks):
        stride = 2 if index in (2, 4) else 1
        beside = F.conv2d(y, each.projections["0"][0].weight, stride=2) if stride == 2 else y
        y = beside + f(y, each.residual, stride)
    torch.testing.assert_close(model(images()), end(model, y), rtol=1e-12, atol=1e-12)
    same = scrambled(discretisation="resnet", blocks=2)
    same.load_state_dict(model.state_dict())
    assert torch.equal(same(images()), model(images()))


def test_three_steps_written_out():
    model = scrambled(discretisation=5, blocks=2)
    a0, a1, a2, b0 = three_step(5)
    blocks = list(model.blocks)
    stride_2 = lambda x, each, lag: F.conv2d(x, each.projections[lag][0].weight, stride=2)  # noqa: E731
    y0 = F.conv2d(images(), model.conv1.weight, padding=1)
    y1 = y0 + f(y0, blocks[0].residual, 1)
    y2 = y1 + f(y1, blocks[1].residual, 1)
    p0, p1, p2 = (stride_2(y, blocks[2], lag) for y, lag in ((y2, "0"), (y1, "1"), (y0, "2")))
    y3 = a0 * p0 + a1 * p1 + a2 * p2 + b0 * f(y2, blocks[2].residual, 2)
    y4 = a0 * y3 + a1 * p0 + a2 * p1 + b0 * f(y3, blocks[3].residual, 1)
    q0, q1, q2 = (stride_2(y, blocks[4], lag) for y, lag in ((y4, "0"), (y3, "1"), (p0, "2")))
    y5 = a0 * q0 + a1 * q1 + a2 * q2 + b0 * f(y4, blocks[4].residual, 2)
    y6 = a0 * y5 + a1 * q0 + a2 * q1 + b0 * f(y5, blocks[5].residual, 1)
    torch.testing.assert_close(model(images()), end(model, y6), rtol=1e-12, atol=1e-12)


def test_two_steps_start_as_a_residual_network_and_train_k():
    model = scrambled(discretisation="lm", blocks=2)
    ordinary = scrambled(discretisation="resnet", blocks=2)
    shared = {name: value for name, value in model.state_dict().items() if name in ordinary.state_dict()}
    ordinary.load_state_dict(shared)
    torch.testing.assert_close(model(images()), ordinary(images()), rtol=1e-12, atol=1e-12)
    model(images()).square().sum().backward()
    assert [each.k is None for each in model.blocks] == [True] + [False] * 5
    assert all(float(each.k.grad.abs()) > 0 for each in model.blocks[1:])


def test_a_trained_k_starts_as_that_k_and_has_its_gradient():
    trained, fixed = scrambled(discretisation="tra", blocks=2), scrambled(discretisation=1, blocks=2)
    weights = {name: value for name, value in trained.state_dict().items() if not name.endswith(".k")}
    fixed.load_state_dict(weights)
    assert torch.equal(trained(images()), fixed(images()))
    assert [each.k is None for each in trained.blocks] == [True, True] + [False] * 4
    out = trained(images()).square().sum()
    (gradient,) = torch.autograd.grad(out, trained.blocks[3].k)
    sizes = []
    for move in (1e-5, -1e-5):
        with torch.no_grad():
            trained.blocks[3].k.add_(move)
            sizes.append(float(trained(images()).square().sum()))
            trained.blocks[3].k.sub_(move)
    assert float(gradient) == pytest.approx((sizes[0] - sizes[1]) / 2e-5, rel=1e-5)
    other = models.create("zerosnet", discretisation="tra", k=-9 / 5, blocks=1, width=2)
    assert float(other.blocks[2].coefficients()[0].detach()) == pytest.approx(1 / 3)
    # As plain numbers they are of k in float64: float32 would leave a sum other than 1.
    assert sum(other.blocks[2].values()[:3]) == pytest.approx(1, abs=1e-15)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def by_hand(blocks: int, width: int, channels: int, classes: int, projections: int) -> int:
    """Two 3x3 convolutions a block, a batch normalisation before each; no bias but in the linear layer."""
    total, inputs = 9 * channels * width, width
    for stage in range(3):
        planes = width * 2**stage
        for _ in range(blocks):
            total += 9 * planes * (inputs + planes) + 2 * (inputs + planes)
            total += projections * inputs * planes if inputs != planes else 0
            inputs = planes
    return total + 2 * inputs + (inputs + 1) * classes


@pytest.mark.parametrize(
    ("name", "projections", "trained"), [("opt", 3, 0), ("resnet", 1, 0), ("tra", 3, 7), ("lm", 2, 8), (5, 3, 0)]
)
def test_parameters_by_hand(name, projections, trained):
    made = models.create("zerosnet", discretisation=name)
    assert (count(made), made.depth) == (by_hand(3, 16, 3, 10, projections) + trained, 20)
    small = models.create("zerosnet", discretisation=name, width=4, channels=1, classes=3)
    assert count(small) == by_hand(3, 4, 1, 3, projections) + trained


@pytest.mark.parametrize(("blocks", "depth"), [(3, 20), (5, 32), (7, 44), (9, 56), (18, 110)])
def test_depths(blocks, depth):
    made = models.create("zerosnet", blocks=blocks, width=1)
    convolutions = sum(isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) for m in made.modules())
    assert convolutions + 1 == made.depth == depth  # and the linear layer


def test_bottlenecks():
    model = models.create("zerosnet", blocks=18, width=2, channels=1, classes=3, bottleneck=True)
    assert model.depth == 164
    total, inputs = 9 * 2, 2
    for stage in range(3):
        planes = 2 * 2**stage
        for _ in range(18):
            total += inputs * planes + 9 * planes**2 + 4 * planes**2 + 2 * (inputs + 2 * planes)
            inputs = 4 * planes
    first = 2 * 8 + 2 * 2  # of the first block, behind a batch normalisation
    third = 2 * 8  # its older state is that of the first convolution
    assert count(model) == total + first + third + 3 * (8 * 16 + 16 * 32) + 2 * 32 + 33 * 3
    named = {index: sorted(block.projections) for index, block in enumerate(model.blocks) if block.projections}
    assert named == {0: ["0"], 2: ["2"], 18: ["0", "1", "2"], 36: ["0", "1", "2"]}
    assert model.eval()(torch.rand(1, 1, 9, 9)).shape == (1, 3)


@pytest.mark.parametrize("name", ["opt", "resnet", "leapfrog", "lm", "tra", "unstable", -3, [0.5, 0, 0.5, 1.0]])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_every_discretisation_takes_one_block_a_stage_and_odd_sides(name, bottleneck):
    made = models.create("zerosnet", discretisation=name, blocks=1, width=2, seed=0, bottleneck=bottleneck)
    assert made(torch.rand(2, 3, 27, 27)).isfinite().all()


def test_weights_start_as_published():
    model = models.create("zerosnet", seed=0)
    weight = model.blocks[7].residual[2].weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert all(
        float(m.weight.detach().min()) == 1 and not m.bias.any()
        for m in model.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
    )


def test_copies_and_half_precision():
    model = models.create("zerosnet", discretisation="tra", blocks=1, width=4, seed=0).eval()
    x = torch.rand(2, 3, 16, 16)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x), model(x))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).float(), model(x.float()).float(), rtol=0.1, atol=0.1)


def test_the_fast_twin_attacks_the_same_network():
    model = scrambled(discretisation="opt", blocks=1).float()
    x, y = images().float(), torch.tensor([0, 1])
    attack = PGD(threat=Threat(eps=0.1), steps=5)
    plain, folded = (attack(model, x, y, precision=p) for p in ("fp32", "folded"))
    torch.testing.assert_close(plain.x_adv, folded.x_adv, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"discretisation": "optt"}, "there is no discretisation 'optt'; did you mean 'opt'?"),
        (
            {"discretisation": 0},
            "discretisation, as the k of a three-step method, must not be 0: the formula divides by",
        ),
        ({"discretisation": float("nan")}, "must be a finite number; got nan"),
        ({"discretisation": [1, 2]}, r"discretisation takes four coefficients, a0, a1, a2 and b0; got \[1, 2\]"),
        ({"discretisation": [1, 2, "x", 0]}, "a coefficient of discretisation must be a finite number; got 'x'"),
        ({"discretisation": True}, "must be a finite number; got True"),
        ({"k": 2.0}, "k is the initial value of discretisations tra and lm; 'opt' trains none"),
        ({"discretisation": "tra", "k": 0}, "k must not be 0: the formula divides by it"),
        ({"bottleneck": 1}, "bottleneck must be True or False; got 1"),
        ({"blocks": 0}, "blocks must be a whole number of 1 or more; got 0"),
    ],
)
def test_options_that_make_no_sense_are_told_in_one_line(options, line):
    with pytest.raises(UserError, match=line):
        models.create("zerosnet", **options)
