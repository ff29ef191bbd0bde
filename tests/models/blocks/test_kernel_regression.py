"""The tangent kernel against its recursion and against wide networks; kernel regression by its closed forms."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch

from buttress import audits, models
from buttress.attacks.black_box.square import Square
from buttress.attacks.composed.autoattack import AutoAttack
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.masking.audit import Masking
from buttress.audits.robustness import Robustness
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.models.blocks.conv_kernel import conv_ntk
from buttress.models.blocks.kernel_regression import Kernel, KernelRegression, centred, ntk
from buttress.threat import Threat

FACTORY = "buttress.models.blocks.kernel_regression:kernel_regression"
THREAT = Threat(eps=0.1)


def points(count, features=5, seed=0, dtype=torch.float64):
    return torch.rand(count, features, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def regression(count=12, classes=3, seed=1, dtype=torch.float64, shape=(1, 6, 6), **kernel):
    support = points(count, math.prod(shape), seed, dtype).view(count, *shape)
    return KernelRegression(support, centred(torch.arange(count) % classes, classes).to(dtype), Kernel(**kernel))


def pair(a, b, depth, weight, bias):
    """The kernel of two inputs, by numbers alone: covariances and tangent layer by layer."""
    d = len(a)
    s, u, v = (weight * sum(p * q for p, q in zip(m, n, strict=True)) / d + bias for m, n in ((a, b), (a, a), (b, b)))
    t = s
    for _ in range(depth):
        cosine = max(-1.0, min(1.0, s / math.sqrt(u * v)))
        angle = math.acos(cosine)
        order0 = (math.pi - angle) / math.pi
        order1 = (math.sin(angle) + (math.pi - angle) * cosine) / math.pi
        s = weight * math.sqrt(u * v) * order1 / 2 + bias
        t = s + t * weight * order0 / 2
        u, v = weight * u / 2 + bias, weight * v / 2 + bias
    return t


def test_opposite_inputs_of_one_layer_share_nothing():
    """At a cosine of -1 no unit sees both: without biases the kernel of one hidden layer is 0."""
    x = points(4, 6)
    assert ntk(x, -x, 1, 2.0, 0.0).diagonal().abs().max() < 1e-12


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
@pytest.mark.parametrize(("weight", "bias"), [(2.0, 0.01), (1.5, 0.3), (2.0, 0.0)])
def test_the_kernel_equals_its_recursion(depth, weight, bias):
    a, b = points(3) - 0.5, points(4, seed=1) - 0.5
    expected = [[pair(p, q, depth, weight, bias) for q in b.tolist()] for p in a.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(ntk(a, b, depth, weight, bias), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("depth", "width"), [(1, 4096), (2, 2048)])
def test_the_kernel_is_that_of_wide_networks(depth, width):
    """Inner products of the gradients of one output, averaged over networks; they deviate as 1 / sqrt(width)."""
    random, networks = torch.Generator().manual_seed(3), 8
    x, sizes = points(4, 6).float() - 0.3, [6, *[width] * depth, 1]
    found = torch.zeros(4, 4)
    for _ in range(networks):
        weights = [torch.randn(m, n, generator=random).requires_grad_() for n, m in itertools.pairwise(sizes)]
        biases = [torch.randn(m, generator=random).requires_grad_() for m in sizes[1:]]
        rows = []
        for one in x:
            for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
                one = math.sqrt(2 / w.shape[1]) * w @ one + math.sqrt(0.01) * b
                one = one.relu() if k < depth else one
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(one.sum(), [*weights, *biases])]))
        found += torch.stack(rows) @ torch.stack(rows).T / networks
    exact = ntk(x, x, depth)
    size = exact.diagonal().sqrt()
    assert float(((found - exact) / (size[:, None] * size)).abs().max()) < 5 / math.sqrt(width * networks)


@pytest.mark.parametrize("depth", [1, 3])
def test_the_diagonal_is_exact(depth):
    a = points(6)
    variance = 2 * a.square().sum(1) / 5 + 0.01
    tangent = variance
    for _ in range(depth):
        variance = variance + 0.01  # half of 2 is 1
        tangent = variance + tangent
    torch.testing.assert_close(ntk(a, a, depth).diagonal(), tangent, rtol=1e-13, atol=0)


def test_gradients_at_equal_inputs_are_finite_and_those_of_the_closed_form():
    """Along K(a, a) everything is smooth: T = (depth + 1) q + ..., so its slope is (depth + 1) dq/da."""
    a = points(6).requires_grad_()
    (slope,) = torch.autograd.grad(ntk(a, a, 2).diagonal().sum(), a)
    torch.testing.assert_close(slope, 3 * 4 * a.detach() / 5, rtol=1e-6, atol=1e-8)
    (slope,) = torch.autograd.grad(ntk(a, a.detach(), 2).diagonal().sum(), a)  # one side alone: half of it
    torch.testing.assert_close(slope, 1.5 * 4 * a.detach() / 5, rtol=1e-6, atol=1e-8)
    (slope,) = torch.autograd.grad(ntk(a, torch.cat([a, -a, 0 * a]), 2, 2.0, 0.0).sum(), a)
    assert slope.isfinite().all()


@pytest.mark.parametrize("argument", ["support", "inputs", "labels"])
def test_gradients_are_those_of_finite_differences(argument):
    support, x = points(5, 4).requires_grad_(), points(3, 4, seed=2).requires_grad_()
    labels = centred(torch.tensor([0, 1, 2, 0, 1]), 3).requires_grad_()
    given = {"support": support, "inputs": x, "labels": labels}[argument]
    kernel = Kernel(ridge=1e-3)

    def outputs(value):
        s, i, y = (
            value if name == argument else t for name, t in (("support", support), ("inputs", x), ("labels", labels))
        )
        return kernel(i, s) @ kernel.coefficients(s, y)

    assert torch.autograd.gradcheck(outputs, given)


def test_outputs_by_hand():
    model, x = regression(depth=1, ridge=0.1), points(4, 36, seed=7).view(4, 1, 6, 6)
    s = model.support.detach().flatten(1).tolist()
    gram = torch.tensor([[pair(p, q, 1, 2.0, 0.01) for q in s] for p in s], dtype=torch.float64)
    cross = torch.tensor([[pair(p, q, 1, 2.0, 0.01) for q in s] for p in x.flatten(1).tolist()], dtype=torch.float64)
    ridge = 0.1 * gram.trace() / 12 * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(model(x), cross @ torch.linalg.inv(gram + ridge) @ model.labels, rtol=1e-6, atol=1e-9)


def test_it_interpolates_its_support():
    model = regression(ridge=1e-10)
    torch.testing.assert_close(model(model.support), model.labels, rtol=0, atol=1e-6)
    flat = regression(ridge=1e3)  # all ridge: next to nothing is left of the labels
    assert float(flat(flat.support).detach().abs().max()) < 0.02


def test_the_order_of_the_support_does_not_matter():
    model, order = regression(), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    other = KernelRegression(model.support[order], model.labels[order])
    x = points(4, 36, seed=7).view(4, 1, 6, 6)
    torch.testing.assert_close(other(x), model(x), rtol=1e-9, atol=1e-10)


def test_float32_outside_float64_inside():
    double = regression()
    single = copy.deepcopy(double).float()
    x = points(4, 36, seed=7).view(4, 1, 6, 6).float()
    exact = KernelRegression(single.support.double(), single.labels.double())(x.double())
    assert single(x).dtype == torch.float32
    torch.testing.assert_close(single(x), exact.float(), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(single(x), exact.float(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["fc", "conv"])
def test_what_is_kept_in_evaluation_follows_the_weights(kind, monkeypatch):
    """The same outputs and slopes as in training mode, one factorisation until support, labels or their kind change."""
    solved = []
    plain = Kernel.coefficients
    monkeypatch.setattr(Kernel, "coefficients", lambda self, s, y: solved.append(1) or plain(self, s, y))
    model, x = regression(kind=kind), points(4, 36, seed=7).view(4, 1, 6, 6).requires_grad_()

    def check(model, x, times):
        (slope,) = torch.autograd.grad(model.train()(x).square().sum(), x)
        expected = model(x)
        solved.clear()
        with torch.inference_mode():
            model.eval()(x.detach())
        for _ in range(2):
            (found,) = torch.autograd.grad(model(x).square().sum(), x)
        assert len(solved) == times
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
        torch.testing.assert_close(found, slope, rtol=0, atol=0)

    check(model, x, 1)
    check(model, x, 0)
    with torch.no_grad():
        model.labels[0] += 1
    check(model, x, 1)
    with torch.no_grad():
        model.support.data = model.support.data.flip(0)  # no version tells of this
    check(model, x, 1)
    model.kernel = replace(model.kernel, ridge=0.5)
    check(model, x, 1)
    check(copy.deepcopy(model), x, 0)
    check(copy.deepcopy(model).float(), x.detach().float().requires_grad_(), 1)
    assert set(model.state_dict()) == {"support", "labels"}


def test_images_keep_their_shape_for_the_convolutional_kernel():
    """A flat support, as a model is made with, is that of the images asked about."""
    model = models.create(FACTORY, features=72, classes=3, points=9, kernel="conv", depth=1, seed=4)
    x = points(4, 72, seed=7).view(4, 2, 6, 6)
    support = model.support.detach().view(9, 2, 6, 6)
    expected = conv_ntk(x, support, 1) @ model.kernel.coefficients(support, model.labels)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=0)
    assert models.from_spec(models.spec_of(model)).kernel == Kernel(kind="conv", depth=1)
    with pytest.raises(UserError, match=r"of one shape; got \(4, 2, 5, 5\)"):
        model(torch.rand(4, 2, 5, 5))


def test_attack_gradients_on_support_points_are_finite():
    model = regression(dtype=torch.float32)
    x = model.support.detach().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), torch.arange(12) % 3)
    (slope,) = torch.autograd.grad(loss, x)
    assert slope.isfinite().all()
    assert (slope.flatten(1).abs().sum(1) > 0).all()


def test_it_is_made_saved_and_read_back(tmp_path):
    model = models.create(FACTORY, features=36, classes=3, points=9, depth=1, mean=0.4, std=0.2, seed=4)
    x = points(4, 36, seed=7).view(4, 1, 6, 6).float()
    models.save_weights(model, tmp_path / "w.safetensors")
    again = models.from_spec(models.spec_of(model))
    assert not torch.equal(again.model.support, model.model.support)
    models.load_weights(again, tmp_path / "w.safetensors")
    assert torch.equal(again(x), model(x))
    assert again.model.kernel == Kernel(depth=1)


@pytest.fixture(scope="module")
def judged():
    """A regression on half of some inputs that show their class, and all of them as a test split."""
    y = torch.arange(24) % 4
    x = 0.5 * points(24, 36, seed=5, dtype=torch.float32)
    x[torch.arange(24), y] += 0.5
    x = x.view(24, 1, 6, 6)
    return KernelRegression(x[:12], centred(y[:12], 4).float()), Split(x, y, torch.arange(24))


def test_weak_and_strong_attacks_stand_side_by_side_in_one_audit(judged):
    model, split = judged
    attacks = [
        FGSM(threat=THREAT),
        PGD(threat=THREAT, steps=10),
        PGD(threat=THREAT, steps=30, restarts=2),
        PGD(threat=THREAT, steps=30, loss="margin"),
        Square(threat=THREAT, queries=200),
        AutoAttack(threat=THREAT, steps=10, queries=100),
    ]
    before = copy.deepcopy(model.state_dict())
    (found,) = audits.run(model, split, [Robustness(attacks=attacks, eps=[0.1], reuse=False)])
    at_eps = [row["curve"][-1]["accuracy"] for row in found.data["attacks"]]
    assert len(at_eps) == 6
    assert found.data["worst"][-1]["accuracy"] <= min(at_eps) <= at_eps[1] < found.data["worst"][0]["accuracy"]
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_the_masking_audit_runs_and_finds_gradients(judged):
    model, split = judged
    quick = Masking(attack=PGD(threat=THREAT, steps=10), threat=THREAT, queries=50, draws=5)
    (found,) = audits.run(model, split, [quick])
    assert found.kind == "masking"
    assert found.data["robust"] is not None


@pytest.mark.parametrize("precision", ["bf16", "folded", "twin", "auto"])
def test_every_search_precision_gives_the_points_of_float32(judged, precision):
    """Whatever surrounds it, the kernel is computed in float64."""
    model, split = judged
    attack = PGD(threat=THREAT, steps=3)
    plain = attack(model, split.x, split.y)
    other = attack(model, split.x, split.y, precision=precision)
    torch.testing.assert_close(other.x_adv, plain.x_adv, rtol=0, atol=0)


def test_errors_are_told():
    with pytest.raises(UserError, match="4 numbers each; got 5"):
        ntk(points(2, 5), points(2, 4))
    with pytest.raises(UserError, match="singular with ridge 0"):
        Kernel(ridge=0.0, bias_variance=0.0).coefficients(torch.zeros(2, 5), torch.eye(2))
    with pytest.raises(UserError, match=r"\(3, 5\) and \(2, 3\)"):
        KernelRegression(points(3), torch.zeros(2, 3))
    with pytest.raises(UserError, match="one of fc, conv; got 'deep'"):
        Kernel(kind="deep")
    for wrong in ({"depth": -1}, {"weight_variance": 0.0}, {"bias_variance": -1.0}, {"ridge": math.inf}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Kernel(**wrong)
    with pytest.raises(UserError, match="36 numbers each; got 25"):
        regression()(torch.rand(2, 1, 5, 5))
