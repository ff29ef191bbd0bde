"""What an attack may rely on when it asks: parts of the inputs, points outside the threat, means over draws."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import losses, tasks
from buttress.attacks import APGD, BPDA, PGD, Attack, DeepFool, Ensemble, EoT, Transfer
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.composition import staged
from buttress.engine.oracle import Oracle, Stage
from buttress.engine.runner import Runner
from buttress.errors import UserError
from buttress.random import Random
from buttress.threat import Threat


def images(n=12, seed=3):
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def oracle_of(model, x, y, target=None, draws=1, batch_size=5, **options):
    return Oracle(Runner(model, tasks.classification, "fp32", batch_size, draws), x, y, target, **options)


@pytest.fixture
def model(nets):
    net = nets.conv(seed=3)
    with torch.no_grad():  # fresh weights see all inputs alike: tell them apart
        net[5].weight *= 8
        net[5].bias -= net(images(64)).mean(0)
    return net


# -- losses of the user's ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_with_float32_weights_gets_a_truth_that_fits_them(dtype):
    """Losses are computed in float64; where that fails, in float32, the truth of a task with one to restore, too."""
    weight = torch.rand(36, generator=torch.Generator().manual_seed(5))
    x, y = images(), images(seed=8).to(dtype)

    def weighted(output, truth):
        return (output - truth).flatten(1) @ weight

    oracle = Oracle(Runner(lambda x: 2 * x, tasks.Denoising(), "fp32", 5), x, y)
    value, grad = oracle.loss_and_grad(x, weighted)
    torch.testing.assert_close(value, (2 * x - y.float()).flatten(1) @ weight)
    torch.testing.assert_close(grad, (2 * weight).view(1, 1, 6, 6).expand_as(x))


# -- losses toward a class ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize("by", ["toward", "target"])
def test_losses_toward_a_class_by_hand(model, loss, by):
    x, y = images(), torch.arange(12) % 4
    goal = (y + 1 + torch.arange(12) // 4) % 4
    options = {"toward": goal} if by == "toward" else {}
    value, grad = oracle_of(model, x, y, goal if by == "target" else None).loss_and_grad(x, loss, **options)
    leaf = x.clone().requires_grad_()
    z = model(leaf)
    row = torch.arange(12)
    top = z.sort(dim=1, descending=True).values
    others = z.scatter(1, goal[:, None], -math.inf).amax(1)
    rival = z[row, y] if by == "toward" else others  # an attack's own class is to pass the truth, a target all others
    expected = {
        "cross_entropy": -F.cross_entropy(z, goal, reduction="none"),
        "margin": z[row, goal] - others,
        "dlr": (z[row, goal] - rival) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2),
    }[loss]
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, slope, rtol=1e-3, atol=1e-5)


def test_targeted_dlr_with_three_classes_is_the_difference_of_logits():
    z = torch.tensor([[3.0, 1.0, 0.5]])
    with pytest.warns(UserWarning, match="targeted DLR needs 4 classes, the model has 3"):
        value = losses.dlr_toward(z, torch.tensor([0]), torch.tensor([2]))
    assert value.tolist() == [-2.5]


def by_length(rows, value, grad):
    return value.abs() / grad.flatten(1).norm(dim=1)


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_the_nearest_face_is_that_of_all_faces_one_by_one(model, share):
    x, y = images(), torch.arange(12) % 4
    classes = torch.stack([(y + k) % 4 for k in (1, 3, 2)], 1)
    oracle = oracle_of(model, x, y)
    value, grad = oracle.nearest_face(x, classes, by_length, share)
    taken = set()
    for n in range(12):
        leaf = x[n : n + 1].clone().requires_grad_()
        z = model(leaf)[0]
        faces = [share * z[k] - z[y[n]] for k in classes[n]]
        slopes = [torch.autograd.grad(face, leaf, retain_graph=True)[0] for face in faces]
        k = min(range(3), key=lambda k: float(faces[k].detach().abs() / slopes[k].norm()))
        taken.add(k)
        torch.testing.assert_close(value[n], faces[k].detach().double(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(grad[n], slopes[k][0], rtol=1e-4, atol=1e-6)
    assert taken == {0, 1, 2}
    assert torch.equal(oracle.success, model(x).argmax(1) != y)
    assert oracle.forwards.tolist() == [1] * 12
    assert oracle.backwards.tolist() == [3] * 12


def test_with_draws_the_mean_is_taken_before_faces_are_compared():
    """Each draw lets one of two faces look near, their mean the third."""
    slopes = iter([torch.tensor([[0.0], [9.0], [0.1], [2.0]]), torch.tensor([[0.0], [-9.0], [3.9], [2.0]])] * 2)

    def model(x):
        return x @ next(slopes).T + torch.tensor([2.0, 1.0, 1.0, 1.0])

    x, y, classes = torch.zeros(1, 1), torch.tensor([0]), torch.tensor([[1, 3, 2]])
    oracle = oracle_of(model, x, y, draws=2)
    _, grad = oracle.nearest_face(x, classes, by_length)
    assert grad.tolist() == [[2.0]]  # the second of the classes, and not 9
    assert (oracle.forwards.tolist(), oracle.backwards.tolist()) == ([2], [2 * 3])


def test_halving_reaches_the_nearest_face(model):
    x, y, sizes = images(), torch.arange(12) % 4, []

    def hungry(points):
        sizes.append(len(points))
        if len(points) > 3:
            raise torch.OutOfMemoryError("too much")
        return model(points)

    classes = torch.stack([(y + 1) % 4, (y + 2) % 4], 1)
    oracle = oracle_of(hungry, x, y, batch_size=12)
    answer = oracle.nearest_face(x, classes, by_length)
    whole = oracle_of(model, x, y).nearest_face(x, classes, by_length)
    torch.testing.assert_close(answer, whole, rtol=1e-4, atol=1e-6)
    assert sizes == [12, 6, 3, 3, 3, 3]
    assert oracle.forwards.tolist() == [1] * 12


# -- a user's loss -----------------------------------------------------------------------------------------------------


def test_a_loss_with_float32_weights_of_its_own_is_followed(model):
    x, y = images(), torch.arange(12) % 4
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    value, grad = oracle_of(model, x, y).loss_and_grad(
        x, lambda z, y: F.cross_entropy(z, y, weight=weight, reduction="none")
    )
    plain, slope = oracle_of(model, x, y).loss_and_grad(x)
    torch.testing.assert_close(value, weight[y] * plain)
    torch.testing.assert_close(grad, weight[y].view(-1, 1, 1, 1) * slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (F.cross_entropy, r"one value per input, \(N,\).*got shape \(\) for"),
        (lambda z, y: z, r"got shape \(\d+, 4\)"),
        (lambda z, y: torch.ones(len(z)), "does not depend on the model's output"),
    ],
)
@pytest.mark.parametrize("attack", [PGD, APGD])
def test_a_loss_that_is_none_is_named(model, loss, told, attack):
    with pytest.raises(UserError, match=told):
        attack(loss=loss, steps=2)(model, images(), torch.arange(12) % 4, batch_size=5)


@pytest.mark.parametrize("wrap", [EoT, BPDA, Ensemble, Transfer])
def test_what_must_be_exact_is_so_inside_other_attacks(model, wrap, monkeypatch):
    made, build = [], Runner.__init__

    def noted(self, *args, **options):
        build(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Runner, "__init__", noted)
    options = {"surrogate": model} if wrap is Transfer else {"draws": 1} if wrap is EoT else {}
    if wrap is Ensemble:
        options = {"models": [model]}
    wrap(attack=DeepFool(steps=2), **options)(model, images(), torch.arange(12) % 4, precision="auto")
    assert made
    assert all(passes.exact for passes in made)
    assert {passes.precision for passes in made} <= {"auto", "fp32", "folded"}


# -- parts -------------------------------------------------------------------------------------------------------------


def test_a_part_works_on_its_rows_and_brings_back_what_it_learnt(model):
    x = images()
    y = model(x).argmax(1)
    oracle = oracle_of(model, x, y, search="first")
    oracle.drop_wrong()
    rows = torch.tensor([7, 1, 4])
    attack, random = PGD(threat=Threat(eps=0.3), steps=5), Random(3, torch.arange(12))
    points, won = staged(oracle, attack, rows, random, "strong")
    assert won.all()
    assert (model(points).argmax(1) != y[rows]).all()
    assert attack.threat.contains(points, x[rows]).all()
    assert (~oracle.alive).nonzero().squeeze(1).tolist() == [1, 4, 7]
    assert (oracle.forwards[rows] > 1).all()
    left = torch.ones(12, dtype=torch.bool).index_fill(0, rows, False)
    assert (oracle.forwards[left] == 1).all()  # the clean pass
    final, output = oracle.settle(x)
    assert torch.equal(final[rows], points)
    torch.testing.assert_close(output, model(final).detach())
    spent = int(oracle.forwards[rows].sum()) - 3, int(oracle.backwards[rows].sum())
    assert oracle.stages == {"strong": Stage("strong", 3, 3, *spent)}


def test_stages_of_one_name_add_up_and_draw_alike_whatever_came_before(model):
    x = images()
    y = model(x).argmax(1)
    attack = PGD(threat=Threat(eps=1e-4), steps=2, step_size=1e-6)
    late, early = Random(3, torch.arange(12)), Random(3, torch.arange(12))
    late.uniform((5,))
    oracle = oracle_of(model, x, y)
    first, _ = staged(oracle, attack, torch.arange(12), early, "a")
    second, _ = staged(oracle, attack, torch.tensor([5, 2]), late, "a")
    other, _ = staged(oracle, attack, torch.tensor([5, 2]), late, "b")
    torch.testing.assert_close(second, first[[5, 2]], rtol=0, atol=1e-6)
    assert not torch.equal(other, second)
    assert oracle.stages["a"] == Stage("a", 14, 0, 14 * 3, 14 * 2)
    assert oracle.alive.all()  # a full search keeps its inputs


def test_forks_and_rows_of_draws():
    ids = torch.tensor([4, 9, 2])
    whole = Random(5, ids)
    fork = whole.fork("x", 1)
    drawn = fork.uniform((3,))
    whole.normal((2,))
    assert torch.equal(whole.fork("x", 1).uniform((3,)), drawn)
    assert not torch.equal(whole.fork("x", 2).uniform((3,)), drawn)
    part, following = whole.only(torch.tensor([2, 0])), whole.uniform((3,))
    assert torch.equal(part.uniform((3,)), following[[2, 0]])
    assert torch.equal(Random(5, ids[1:]).fork("x", 1).uniform((3,)), drawn[1:])


# -- points outside the threat -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Far(Attack):
    """Asks about a point far outside, then about one inside; returns the far one."""

    threat: Threat = Threat(eps=0.3)
    strays: ClassVar[bool] = True
    near: float = 0.2

    def perturb(self, oracle, x, y, random):
        oracle.logits(x + 5)
        oracle.logits(x + self.near)
        return x + 5


def test_a_point_outside_the_threat_is_no_success(nets):
    model = nets.linear([[-1.0], [1.0]], [0.6, 0.0])  # class 1 from x = 0.3
    x, y = torch.tensor([[0.0], [0.15], [0.25]]), torch.zeros(3, dtype=torch.long)
    for search in ("full", "first"):
        result = Far(threat=Threat(eps=0.3, box=None))(model, x, y, search=search)
        assert (result.distance <= 0.3).all()
        assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)
    first = Far(threat=Threat(eps=0.3, box=None), near=0.1)(model, x, y, search="first")
    torch.testing.assert_close(first.x_adv[2], torch.tensor([0.35]))  # the one inside, not 0.25 + 0.3


@dataclass(frozen=True, kw_only=True)
class Halving(MinimumNorm):
    """Steps of equal size along the diagonal, large to small."""

    def perturb(self, oracle, x, y, random):
        smallest = Smallest(oracle, self.threat)
        for step in range(10, 0, -1):
            points = x + step / 10
            oracle.logits(points)
            smallest.offer(points)
        return smallest.point


@pytest.mark.parametrize("search", ["full", "first"])
def test_minimum_norm_attacks_go_on_after_the_first_success(nets, search):
    model = nets.linear([[-1.0], [1.0]], [0.7, 0.0])  # class 1 from x = 0.35
    x, y = torch.tensor([[0.0], [0.2], [0.5], [-4.0]]), torch.zeros(4, dtype=torch.long)
    result = Halving(threat=Threat(norm="l2", eps=math.inf, box=None))(model, x, y, search=search)
    torch.testing.assert_close(result.distance, torch.tensor([0.4, 0.2, 0.0, 0.0], dtype=torch.float64))
    assert result.success.tolist() == [True, True, True, False]
    assert torch.equal(result.x_adv[2:], x[2:])
    within = Halving(threat=Threat(norm="l2", eps=0.3, box=None))(model, x, y, search=search)
    assert within.success.tolist() == [False, True, True, False]
    assert (within.distance <= 0.3).all()


# -- means over draws --------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """A linear model whose logits are off by a standard normal each time."""

    def __init__(self, inner, std=1.0):
        super().__init__()
        self.inner, self.std = inner, std

    def forward(self, x):
        return self.inner(x) + self.std * torch.randn(len(x), 2)


@dataclass(frozen=True, kw_only=True)
class Drawn(PGD):
    draws: int = 200


def test_with_draws_every_answer_is_a_mean(nets):
    model = Noisy(nets.linear([[1.0, 0.0], [0.0, 1.0]]), std=0.5)
    x, y = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]), torch.tensor([0, 1, 0])
    oracle = oracle_of(model, x, y, draws=1000)
    torch.manual_seed(0)
    value, grad = oracle.loss_and_grad(x, "margin")
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]), rtol=0, atol=1e-4)
    expected = torch.tensor([-0.8, -0.8, -0.2])
    torch.testing.assert_close(value, expected, rtol=0, atol=5 * 2**0.5 * 0.5 / 1000**0.5)
    assert oracle.forwards.tolist() == [1000] * 3
    assert oracle.backwards.tolist() == [1000] * 3


def test_with_draws_the_verdict_is_of_the_mean(nets):
    """One draw is wrong in nearly half of the cases; the mean is not, until the inputs have been moved across."""
    model = Noisy(nets.linear([[1.0, 0.0], [0.0, 1.0]]))
    x, y = torch.tensor([[0.9, 0.3]]).repeat(6, 1), torch.zeros(6, dtype=torch.long)
    for search in ("full", "first"):
        assert not Drawn(threat=Threat(eps=0.05), steps=2)(model, x, y, search=search).success.any()
        assert Drawn(threat=Threat(eps=0.6), steps=4)(model, x, y, search=search).success.all()


# -- flags read every so many questions --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("every", [2, 3, 50])
def test_reading_the_flags_seldom_changes_no_verdict(model, every, precision):
    x = images(40)
    y = model(x).argmax(1)
    attack = PGD(threat=Threat(eps=0.03), steps=10)
    often = attack(model, x, y, search="first", batch_size=7)
    seldom = attack(model, x, y, search="first", batch_size=7, read_every=every, precision=precision)
    assert 0 < often.success.sum() < 40
    assert torch.equal(seldom.success, often.success)
    assert torch.equal(model(seldom.x_adv).argmax(1) != y, seldom.success)
    if precision == "fp32":
        torch.testing.assert_close(seldom.x_adv, often.x_adv, rtol=0, atol=1e-6)
        assert (seldom.backwards >= often.backwards).all()
        assert (seldom.backwards - often.backwards < every).all()
