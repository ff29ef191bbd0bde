"""BPDA: exact forward passes, replaced gradients, and hooks that are gone afterwards."""

import pytest
import torch
from torch import nn

from buttress.attacks import BPDA, FGSM, MIFGSM, PGD, EoT
from buttress.errors import UserError
from buttress.threat import Threat

THREAT = Threat(eps=0.1)


class Rounded(nn.Module):
    """The inputs in so many levels."""

    def __init__(self, levels=4):
        super().__init__()
        self.levels = levels

    def forward(self, x):
        return (x * self.levels).round() / self.levels


@pytest.fixture(scope="module")
def case(nets):
    net = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(10, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        net[5].weight *= 8
        net[5].bias -= net(x).mean(0)
    return nn.Sequential(Rounded(), net).eval(), net, x, net(x).argmax(1)


def hooks(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_on_a_rounding_layer_every_gradient_is_the_networks_at_the_rounded_point(case):
    model, net, x, y = case
    x_adv = x
    for _ in range(6):
        point = model[0](x_adv).requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(point), y, reduction="sum"), point)
        x_adv = (x + (x_adv + 0.03 * grad.sign() - x).clamp(-0.1, 0.1)).clamp(0, 1)
    attack = PGD(threat=THREAT, steps=6, step_size=0.03, start="zero")
    ours = BPDA(attack=attack, layers="0")(model, x, y)
    torch.testing.assert_close(ours.x_adv, x_adv, rtol=0, atol=1e-12)
    assert torch.equal(ours.success, model(x_adv).argmax(1) != y)
    masked = attack(model, x, y)  # rounding has gradient 0: the plain attack stays where it is
    assert torch.equal(masked.x_adv, x)
    assert ours.success.sum() > masked.success.sum()


def test_where_the_layer_changes_nothing_it_is_the_attack_without_it(case):
    _, net, x, y = case

    class Closed(nn.Module):
        def forward(self, x):
            return x.detach().clone()

    attack = PGD(threat=THREAT, steps=6)
    ours = BPDA(attack=attack, layers=["0"])(nn.Sequential(Closed(), net).eval(), x, y, seed=3)
    theirs = attack(net, x, y, seed=3)
    assert torch.equal(ours.x_adv, theirs.x_adv)
    assert torch.equal(ours.forwards, theirs.forwards)


def test_forward_passes_are_the_models_own_to_the_bit(case):
    model, _, x, y = case
    outputs = []
    hook = model.register_forward_hook(lambda module, args, output: outputs.append((args[0].detach(), output.detach())))
    BPDA(attack=PGD(threat=THREAT, steps=4), layers="0", backward=torch.sin)(model, x, y)
    hook.remove()
    assert len(outputs) == 5
    for point, output in outputs:
        assert torch.equal(output, model(point))


def test_a_stand_in_gives_the_gradient(nets):
    """Two layers are replaced by one function: the gradient is its derivative at each layer's own input."""

    class Step(nn.Module):
        def forward(self, x):
            return (x > 0.5).to(x.dtype)

    model = nn.Sequential(Step(), nn.Linear(3, 2, bias=False).double()).eval()
    x, y = torch.tensor([[0.4, 0.6, 0.45]]).double(), torch.tensor([0])
    seen = []

    class Spy(PGD):
        def perturb(self, oracle, x, y, random):
            seen.append(oracle.loss_and_grad(x, "margin")[1])
            return x

    BPDA(attack=Spy(threat=THREAT), layers="0", backward=lambda x: torch.sigmoid(8 * (x - 0.5)))(model, x, y)
    slope = torch.sigmoid(8 * (x - 0.5))
    weight = model[1].weight.detach()
    torch.testing.assert_close(seen[0], 8 * slope * (1 - slope) * (weight[1] - weight[0]))


def test_layers_that_work_in_place_and_layers_that_are_called_twice(nets):
    relu = nn.ReLU(inplace=True)
    linear = nets.linear(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[1]
    model = nn.Sequential(linear, relu, linear, relu, linear).eval()
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = []

    class Spy(PGD):
        def perturb(self, oracle, x, y, random):
            seen.append(oracle.loss_and_grad(x, lambda z, y: z[:, 0])[1])
            return x

    BPDA(attack=Spy(threat=THREAT), layers="1")(model, x, torch.zeros(5, dtype=torch.int64))
    weight = linear.weight.detach()
    torch.testing.assert_close(seen[0], (weight @ weight @ weight)[0].expand(5, 3))


def test_a_layer_that_the_model_calls_without_gradients(case):
    model, net, x, y = case

    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.rounding, self.net = Rounded(), net

        def forward(self, x):
            with torch.no_grad():
                x = self.rounding(x)
            return self.net(x)

    attack = PGD(threat=THREAT, steps=4)
    with pytest.raises(UserError, match=r"no gradient|does not depend"):
        attack(Careful(), x, y)
    ours = BPDA(attack=attack, layers="rounding")(Careful(), x, y)
    assert torch.equal(ours.x_adv, BPDA(attack=attack, layers="0")(model, x, y).x_adv)


@pytest.mark.parametrize("search", ["full", "first"])
def test_hooks_are_gone_afterwards_also_after_an_exception(case, search):
    model, _, x, y = case
    before = hooks(model)
    attack = BPDA(attack=PGD(threat=THREAT), layers=["0", "1"], backward=lambda x: x)
    with pytest.raises(UserError, match=r"stand-in for layer '1' has shape \(\d+, 1, 6, 6\), the layer's output"):
        attack(model, x, y, search=search)
    assert hooks(model) == before
    BPDA(attack=PGD(threat=THREAT), layers="0")(model, x, y, search=search)
    assert hooks(model) == before


@pytest.mark.parametrize(("precision", "used"), [("folded", "fp32"), ("twin", "bf16"), ("bf16", "bf16")])
def test_a_copy_of_the_model_without_the_hooks_is_not_searched(case, precision, used):
    model, _, x, y = case
    model, x = model.float(), x.float()
    try:
        attack = BPDA(attack=PGD(threat=THREAT, steps=6, start="zero"), layers="0")
        result = attack(model, x, y, precision=precision)
        assert result.precision == used
        assert (result.x_adv - x).abs().amax() > 0.09
        assert attack(model, x, y, precision="auto").precision in ("fp32", "bf16")
    finally:
        model.double()


def test_it_goes_around_other_wrappers(case):
    model, _, x, y = case
    inner = FGSM(threat=THREAT)
    plain = BPDA(attack=inner, layers="0")(model, x, y)
    drawn = BPDA(attack=EoT(attack=inner, draws=3), layers="0")(model, x, y)
    swapped = EoT(attack=BPDA(attack=inner, layers="0"), draws=3)(model, x, y)
    assert (drawn.forwards == 3 * plain.forwards).all()
    assert torch.equal(drawn.x_adv, plain.x_adv)
    assert torch.equal(swapped.x_adv, plain.x_adv)
    assert torch.equal(swapped.forwards, drawn.forwards)


def test_without_layers_it_is_the_attack_inside(case):
    _, net, x, y = case
    attack = MIFGSM(threat=THREAT)
    assert torch.equal(BPDA(attack=attack)(net, x, y).x_adv, attack(net, x, y).x_adv)


def test_what_has_no_such_layers_is_refused(case):
    model, _, x, y = case
    with pytest.raises(UserError, match=r"no layer '1.9'; did you mean '1"):
        BPDA(layers="1.9")(model, x, y)
    with pytest.raises(UserError, match="layers of a torch module; the model is a method"):
        BPDA(layers="0")(model.forward, x, y)
    with pytest.raises(UserError, match="layers must be a name or a list of names"):
        BPDA(layers=[3])
    with pytest.raises(UserError, match="backward must be a function"):
        BPDA(layers="0", backward="identity")
    pair = nn.Sequential(nn.Identity(), nn.LSTM(6, 4, batch_first=True).double())
    with pytest.raises(UserError, match="layers that return a tensor; '1' returned a tuple"):
        BPDA(layers="1")(pair, x[:, 0], y)


@pytest.mark.parametrize("layers", ["", ["0", ""]])
def test_the_whole_model_is_no_layer(layers):
    with pytest.raises(UserError, match="layers must be a name or a list of names; got an empty name"):
        BPDA(layers=layers)


@pytest.mark.parametrize("layers", [[], ()])
def test_an_empty_list_of_layers_is_refused(layers):
    with pytest.raises(UserError, match="must be names of one submodule at least; got none"):
        BPDA(layers=layers)
