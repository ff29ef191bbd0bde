"""The copies that a search may run on: they compute the model's own function, and never at its expense."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import models, tasks
from buttress.attacks import APGD, PGD, DeepFool, EoT, Square
from buttress.engine.oracle import Oracle
from buttress.engine.runner import Runner
from buttress.engine.twin import NoTwinError, Twin
from buttress.threat import Threat


def trained(model, shape=(3, 8, 8), seed=0):
    """Running statistics and affine weights that are not those of a new BatchNorm."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.affine:
                    module.weight.uniform_(0.5, 2, generator=generator)
                    module.bias.normal_(generator=generator)
    return model.eval(), torch.rand(12, *shape, generator=generator)


class Block(nn.Module):
    """Convolutions with and without bias, grouped and strided, BatchNorm with and without weights, a residual."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.norm2 = nn.BatchNorm2d(8, affine=False)
        self.third = nn.Conv2d(8, 8, 3, stride=2)
        self.norm3 = nn.BatchNorm2d(8)
        self.norm4 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        h = F.relu(self.norm1(self.first(x)))
        h = F.relu(self.norm2(self.second(h)) + h)
        h = self.norm3(F.relu(self.third(h)))  # not right behind its convolution
        return self.head(self.norm4(h).mean((2, 3)))


def test_what_follows_a_convolution_is_folded_and_nothing_else(nets):
    model, x = trained(nets.seeded(Block))
    twin = Twin(model, x, bf16=False)
    kept = [name for name, module in twin.copy.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert kept == ["norm3", "norm4"]
    torch.testing.assert_close(twin(x), model(x), rtol=1e-5, atol=1e-5)
    leaf, own = x.clone().requires_grad_(), x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(twin(leaf).square().sum(), leaf)
    (expected,) = torch.autograd.grad(model(own).square().sum(), own)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "preactresnet18", "wrn", "vgg19", "smallcnn"])
def test_the_models_of_the_house_have_twins(name):
    options = {"resnet18": {"width": 8}, "preactresnet18": {"width": 8}, "wrn": {"depth": 10, "width": 1}}
    size = 28 if name == "smallcnn" else 32
    model, x = trained(models.create(name, classes=5, channels=3, **options.get(name, {})), (3, size, size))
    twin = Twin(model, x[:4], bf16=False)
    torch.testing.assert_close(twin(x), model(x), rtol=1e-3, atol=1e-3 * model(x).abs().max().item())


def test_in_bf16_the_output_is_near_and_the_last_layer_is_float32(nets):
    model, x = trained(nets.seeded(Block))
    twin = Twin(model, x, bf16=True)
    output = twin(x)
    assert output.dtype == torch.float32
    assert twin.copy.first.weight.dtype == torch.bfloat16
    assert twin.copy.head.weight.dtype == torch.float32
    off = (output - model(x)).abs().max() / model(x).abs().max()
    assert 0 < off < 0.03


def test_the_model_itself_is_not_touched(nets):
    model, x = trained(nets.seeded(Block))
    before = nets.state(model)
    Twin(model, x, bf16=True)
    nets.assert_state(model, before)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("bf16", [False, True])
def test_refilled_it_computes_what_the_changed_model_does(nets, bf16):
    model, x = trained(nets.seeded(Block))
    twin = Twin(model, x, bf16=bf16)
    objects = [id(p) for p in twin.parameters()]
    trained(model, seed=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    twin.refill(model)
    assert [id(p) for p in twin.parameters()] == objects
    new = Twin(model, x, bf16=bf16).state_dict()
    assert twin.state_dict().keys() == new.keys()
    assert all(torch.equal(value, new[name]) for name, value in twin.state_dict().items())
    torch.testing.assert_close(twin(x), model(x), rtol=0.03 if bf16 else 1e-4, atol=0.03 if bf16 else 1e-4)


class Reused(nn.Module):
    """The output of the convolution is used a second time: folding would change it."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x):
        h = self.convolution(x)
        return self.head((self.norm(h) + h).mean((2, 3)))


class Twice(nn.Module):
    """One convolution, called twice, before two norms."""

    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 5)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.convolution(x))
        return self.head(x.mean((2, 3)))


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        return self.head(x.mean((2, 3)) + torch.randn(len(x), 3))


def hooked():
    model = Block()
    model.second.register_forward_hook(lambda module, args, output: output * 2)
    return model


@pytest.mark.parametrize("build", [Random, hooked])
def test_what_cannot_be_folded_has_no_twin(nets, build):
    model, x = trained(nets.seeded(build))
    with pytest.raises(NoTwinError):
        Twin(model, x, bf16=False)


@pytest.mark.parametrize("build", [Twice, Reused])
def test_a_layer_that_is_called_or_read_twice_is_left_alone(nets, build):
    model, x = trained(nets.seeded(build))
    twin = Twin(model, x, bf16=False)
    assert not twin._pairs
    torch.testing.assert_close(twin(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_copy_that_computes_something_else_is_refused(nets, monkeypatch):
    model, x = trained(nets.seeded(Reused))
    monkeypatch.setattr("buttress.engine.twin._trace", lambda model, x: ({"convolution": "norm"}, "head", model(x)))
    with pytest.raises(NoTwinError, match="is off by"):
        Twin(model, x, bf16=False)


@pytest.mark.parametrize(("precision", "instead"), [("folded", "fp32"), ("twin", "bf16")])
def test_without_a_twin_the_model_itself_is_used_and_the_log_says_why(nets, precision, instead, caplog):
    model, x = trained(nets.seeded(hooked))
    y = model(x).argmax(1)
    with caplog.at_level(logging.INFO, logger="buttress"):
        result = PGD(threat=Threat(eps=0.05), steps=3)(model, x, y, precision=precision)
    assert result.precision == instead
    assert "it has hooks" in caplog.text
    assert torch.equal(result.x_adv, PGD(threat=Threat(eps=0.05), steps=3)(model, x, y, precision=instead).x_adv)


@pytest.mark.parametrize("search", ["full", "first"])
@pytest.mark.parametrize("precision", ["folded", "twin"])
def test_the_verdict_is_the_models_own(nets, precision, search):
    def build():
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)]
        return nn.Sequential(*layers)

    model, x = trained(nets.seeded(build))
    y, attack = model(x).argmax(1), APGD(threat=Threat(eps=0.02), steps=12)
    result, plain = attack(model, x, y, precision=precision, search=search), attack(model, x, y, search=search)
    assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)
    assert torch.equal(result.success, plain.success)
    assert 0 < plain.success.sum() < len(x)


def test_kept_twins_are_filled_again_and_never_copied_anew(nets, monkeypatch):
    model, x = trained(nets.seeded(Block))
    y = model(x).argmax(1)
    copies, copied = [], copy.deepcopy

    def deepcopy(thing, *memo):
        copies.append(thing is model)
        return copied(thing, *memo)

    monkeypatch.setattr("buttress.engine.twin.copied_network", deepcopy)
    twins, attack = {}, PGD(threat=Threat(eps=0.05), steps=3)
    for turn in range(3):
        trained(model, seed=turn)
        kept = attack.craft(model, x, y, precision="folded", twins=twins, seed=turn)
        assert torch.equal(kept, attack.craft(model, x, y, precision="folded", seed=turn))
    assert sum(copies) == 1 + 3  # one that is kept, one for each call that keeps none


def test_that_there_is_no_twin_is_kept_too(nets, monkeypatch):
    model, x = trained(nets.seeded(hooked))
    y = model(x).argmax(1)
    tries = []
    monkeypatch.setattr(
        "buttress.engine.runner.Twin", lambda *args, **options: tries.append(1) or Twin(*args, **options)
    )
    twins, attack = {}, PGD(threat=Threat(eps=0.05), steps=3)
    for _ in range(3):
        assert torch.equal(attack.craft(model, x, y, precision="folded", twins=twins), attack.craft(model, x, y))
    assert len(tries) == 1


def test_compiled_batches_have_one_size_and_the_answers_are_the_twins(nets, monkeypatch):
    """The compiler itself is torch's; here it is left out, and what it would be given is looked at."""
    sizes = []

    def compile(module, **options):
        assert options["dynamic"] is False
        return lambda x: sizes.append(len(x)) or module(x)

    monkeypatch.setattr(torch, "compile", compile)
    model, x = trained(nets.seeded(Block))
    y = model(x).argmax(1)
    attack = PGD(threat=Threat(eps=0.02), steps=6)
    results = {p: attack(model, x, y, precision=p, search="first", batch_size=5) for p in ("twin", "compiled")}
    assert set(sizes) == {5}
    assert torch.equal(results["compiled"].success, results["twin"].success)
    assert results["compiled"].precision == "compiled"


def test_auto_settles_on_the_fastest_it_timed(nets, monkeypatch):
    clock = iter(range(1000))
    cost = {"fp32": 4, "bf16": 3, "folded": 1, "twin": 2}
    model, x = trained(nets.seeded(Block))
    oracle = Oracle(Runner(model, tasks.classification, "auto", 12), x, model(x).argmax(1))
    now, inner = [0.0], oracle._open

    def timed(points, rows, precision, draw, *, gradient):
        now[0] += cost[precision] + next(clock) * 1e-9
        return inner(points, rows, precision, draw, gradient=gradient)

    monkeypatch.setattr(oracle, "_open", timed)
    monkeypatch.setattr("buttress.engine.runner.perf_counter", lambda: now[0])
    oracle.settle_precision(gradient=True)
    assert oracle.runner.precision == "folded"
    assert not oracle.forwards.any()


@pytest.mark.parametrize(("asked", "used"), [("bf16", "fp32"), ("twin", "folded"), ("folded", "folded")])
def test_smallest_perturbations_are_looked_for_in_float32(nets, asked, used):
    model, x = trained(nets.seeded(Block))
    y = model(x).argmax(1)
    attack = DeepFool(threat=Threat(norm="l2", eps=float("inf")), steps=3)
    transformed = EoT(attack=attack, draws=2, transforms=lambda x, random: x * 1.0)
    for wrapped in (attack, EoT(attack=attack, draws=1), transformed):
        assert wrapped(model, x, y, precision=asked).precision == used
        assert wrapped(model, x, y, precision="auto").precision in ("fp32", "folded")
    assert PGD(steps=2)(model, x, y, precision=asked).precision == asked


class Viewed(nn.Module):
    """Flattens by `view`, which channels-last features do not allow."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 5)

    def forward(self, x):
        h = F.relu(self.norm(self.convolution(x)))
        return self.head(h.view(h.size(0), -1))


@pytest.mark.parametrize("search", ["full", "first"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "folded", "twin", "auto"])
def test_a_network_that_flattens_by_view_runs_in_every_precision(nets, precision, search):
    model, x = trained(nets.seeded(Viewed))
    y = model(x).argmax(1)
    result = PGD(threat=Threat(eps=0.05), steps=3)(model, x, y, precision=precision, search=search)
    assert precision in (result.precision, "auto")
    assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)


def test_its_twin_computes_what_it_does(nets):
    model, x = trained(nets.seeded(Viewed))
    torch.testing.assert_close(Twin(model, x, bf16=False)(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_copy_that_cannot_run_is_no_twin(nets, monkeypatch):
    model, x = trained(nets.seeded(Viewed))
    monkeypatch.setattr("buttress.engine.twin._trace", lambda model, x: ({"convolution": "norm"}, None, model(x)))
    monkeypatch.setattr(nn.Identity, "forward", lambda self, x: x.flatten() @ x.new_zeros(1))
    with pytest.raises(NoTwinError, match="cannot run"):
        Twin(model, x, bf16=False)


class ViewsGradient(torch.autograd.Function):
    """The tensor as it is; its gradient is led through `view`, which channels-last gradients do not allow."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.view(len(grad), -1).mul(1.0).view_as(grad)


class FullGradient(ViewsGradient):
    """One that a bf16 gradient would break."""

    @staticmethod
    def backward(ctx, grad):
        if grad.dtype != torch.float32:
            raise ValueError("gradients are float32 here")
        return grad


def views_gradient(h):
    return ViewsGradient.apply(h)


def full_gradient(h):
    return FullGradient.apply(h.to(h.dtype))


def contiguous(h):
    assert h.is_contiguous()
    return h


def packed(h):
    if not h.is_contiguous():
        raise ValueError("features must be packed")
    return h


def full(h):
    if h.dtype != torch.float32:
        raise TypeError("features are float32 here")
    return h


class Particular(nn.Module):
    """Particular about the features between its convolutions."""

    def __init__(self, check):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.head, self.check = nn.Linear(64, 5), check

    def forward(self, x):
        h = self.check(F.relu(self.norm(self.first(x))))
        return self.head(self.second(h).flatten(1))


@pytest.mark.representatives(search=["first"])
@pytest.mark.parametrize("search", ["full", "first"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "folded", "twin", "auto"])
@pytest.mark.parametrize("check", [views_gradient, contiguous, packed])
def test_a_network_that_needs_the_usual_layout_runs_in_every_precision(nets, check, precision, search):
    model, x = trained(nets.seeded(lambda: Particular(check)))
    y = model(x).argmax(1)
    attack = APGD(threat=Threat(eps=0.05), steps=3)  # asks without and with a gradient
    result = attack(model, x, y, precision=precision, search=search)
    assert precision in (result.precision, "auto")
    assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)
    assert attack(model, x, y, precision="auto").backwards.max() >= 3


@pytest.mark.parametrize("precision", ["bf16", "folded", "twin", "auto"])
@pytest.mark.parametrize(("check", "blind"), [(full, "fp32"), (full_gradient, None)])
def test_a_network_that_cannot_run_in_bf16_runs_in_float32_and_that_is_told(nets, check, blind, precision):
    model, x = trained(nets.seeded(lambda: Particular(check)))
    y = model(x).argmax(1)
    result = PGD(threat=Threat(eps=0.05), steps=3)(model, x, y, precision=precision)
    assert result.precision in {"folded": ("folded",), "auto": ("fp32", "folded")}.get(precision, ("fp32",))
    expected = "fp32" if result.precision == "fp32" else "folded"
    plain = PGD(threat=Threat(eps=0.05), steps=3)(model, x, y, precision=expected)
    assert torch.equal(result.x_adv, plain.x_adv)
    few = Square(threat=Threat(eps=0.05), queries=3)(model, x, y, precision=precision)  # asks for no gradient
    if precision != "auto":
        assert few.precision == (result.precision if blind else precision)


def test_what_cannot_run_in_any_way_raises_what_the_model_itself_raises(nets):
    def refuse(h):
        raise ValueError("never")

    model, x = trained(nets.seeded(lambda: Particular(refuse)))
    for precision in ("fp32", "bf16", "folded", "twin", "auto"):
        with pytest.raises(ValueError, match="never"):
            PGD(steps=1)(model, x, torch.zeros(12).long(), precision=precision)


@pytest.mark.parametrize("precision", ["bf16", "twin"])
def test_several_gradients_at_once_and_the_nearest_face_fall_back_too(nets, precision):
    model, x = trained(nets.seeded(lambda: Particular(full_gradient)))
    y, classes = model(x).argmax(1), torch.tensor([[1, 0]]).expand(12, 2)

    def nearest(oracle):
        return oracle.nearest_face(x, classes, lambda rows, value, grad: value.abs())

    for ask in (lambda o: o.gradients(x, ["margin", "cross_entropy"]), nearest):
        asked, plain = (Oracle(Runner(model, tasks.classification, p, 12), x, y) for p in (precision, "fp32"))
        for ours, theirs in zip(ask(asked), ask(plain), strict=True):
            assert torch.equal(ours, theirs)
        assert asked.runner.precision == "fp32"
        assert asked.forwards.tolist() == plain.forwards.tolist()


def test_running_out_of_memory_gives_up_no_precision(nets):
    def hungry(h):
        if len(h) > 4:
            raise torch.OutOfMemoryError("too much")
        return h

    model, x = trained(nets.seeded(lambda: Particular(hungry)))
    y = torch.zeros(12).long()
    passes = Runner(model, tasks.classification, "bf16", 12)
    Oracle(passes, x, y).loss_and_grad(x)
    assert (passes.precision, passes.batch_size, passes._channels_last) == ("bf16", 3, True)


def test_a_copy_that_bf16_breaks_is_no_twin(nets):
    model, x = trained(nets.seeded(lambda: Particular(full)))
    Twin(model, x, bf16=False)
    with pytest.raises(NoTwinError, match="cannot run: features are float32 here"):
        Twin(model, x, bf16=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "folded", "twin"])
@pytest.mark.parametrize("search", ["full", "first"])
def test_in_float64_the_model_itself_is_searched_and_that_is_told(nets, precision, search):
    model, x = nets.conv(seed=3, dtype=torch.float64), torch.rand(6, 1, 6, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    attack = PGD(threat=Threat(eps=0.05), steps=3)
    result, plain = (attack(model, x, y, precision=p, search=search) for p in (precision, "fp32"))
    assert result.precision == "fp32"
    assert torch.equal(result.x_adv, plain.x_adv)
