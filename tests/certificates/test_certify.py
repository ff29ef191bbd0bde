"""What `certify` and `radius` answer, and what they refuse in one line."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.certificates import zoo
from torch import nn

from buttress import certificates, tasks
from buttress.certificates.network.recording import record
from buttress.errors import UserError
from buttress.models import Normalized
from buttress.threat import Threat

BOUNDING = ("ibp", "crown-ibp", "crown", "alpha-crown")


class Written(nn.Module):
    """A network with a forward that is given."""

    def __init__(self, forward):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.run = forward

    def forward(self, x):
        """What was given, of the linear layer and the input."""
        return self.run(self.linear, x)


@pytest.mark.parametrize("method", BOUNDING)
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", torch.inf)])
def test_linear_networks_in_closed_form(method, norm, dual):
    """min over |d|_p <= eps of the margin is the margin less eps |w_y - w_k|_q; the radius is their quotient."""
    model, x = nn.Linear(5, 3), torch.randn(20, 5)
    y = model(x).argmax(1)
    weight, logits = model.weight.detach(), model(x).detach()
    rows = weight[y][:, None] - weight[None]
    apart = (logits.gather(1, y[:, None]) - logits) - 0.05 * rows.norm(dual, dim=2)
    expected = apart.scatter(1, y[:, None], torch.inf).amin(1)
    threat = Threat(norm=norm, eps=0.05, box=None)
    found = certificates.certify(model, x, y, threat=threat, method=method)
    assert (found.margin <= expected + 1e-5).all()
    assert (found.margin >= expected - 1e-3).all()
    if method == "crown":
        quotients = (logits.gather(1, y[:, None]) - logits) / rows.norm(dual, dim=2)
        smallest = quotients.scatter(1, y[:, None], torch.inf).amin(1).clamp(max=0.4)
        radii = certificates.radius(model, x, y, threat=Threat(norm=norm, eps=0.4, box=None), steps=12)
        torch.testing.assert_close(radii.float(), smallest, atol=1e-3, rtol=1e-3)
        assert (radii <= smallest + 1e-6).all()


def test_verified_falsified_and_unknown():
    model, x = zoo.network("relu"), torch.rand(30, *zoo.SHAPE)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % zoo.CLASSES
    threat = Threat(eps=0.05)
    found = certificates.certify(model, x, y, threat=threat)
    assert found.falsified[0]
    torch.testing.assert_close(found.x_adv[0], x[0])
    assert not (found.verified & found.falsified).any()
    assert (found.verified == (found.margin > 0)).all()
    assert (model(found.x_adv).argmax(1) != y)[found.falsified].all()
    assert threat.contains(found.x_adv, x).all()
    assert found.sound
    assert found.method == "crown"
    assert found.seconds > 0
    counts = f"{int(found.verified.sum())} of 30 verified, {int(found.falsified.sum())} falsified"
    assert str(found).startswith(f"crown: {counts}, {int(found.unknown.sum())} unknown (")
    wide = certificates.certify(model, x, y, threat=Threat(eps=0.5))
    assert wide.falsified.sum() > 10  # the corners that the bounds point to are adversarial examples


@pytest.mark.parametrize("method", BOUNDING)
def test_batch_size_order_and_mode_do_not_matter(method):
    model, x = zoo.network("residual").train(), torch.rand(7, *zoo.SHAPE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    y = torch.arange(7) % zoo.CLASSES
    settings = {"steps": 3} if method == "alpha-crown" else {}
    whole = certificates.certify(model, x, y, method=method, **settings).margin
    parts = certificates.certify(model, x.flip(0), y.flip(0), method=method, batch_size=2, **settings).margin
    torch.testing.assert_close(parts.flip(0), whole, atol=1e-4, rtol=1e-4)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "forward",
    [
        lambda linear, x: linear(x).transpose(0, 1).relu().transpose(0, 1).contiguous(),
        lambda linear, x: torch.stack([linear(x).relu(), -linear(x)]).sum(0),
        lambda linear, x: linear(x.view(-1, 1, 4).expand(-1, 5, 4).reshape(-1, 4)).relu().view(-1, 5, 3).sum(1),
        lambda linear, x: linear(x.view(-1, 4)).relu().view(1, -1, 3)[0],
        lambda linear, x: F.linear(torch.stack([x, 2 * x]), linear.weight, linear.bias).relu().mean(0),
    ],
)
def test_the_axis_of_inputs_may_be_anywhere(forward):
    """The bounds of a network that moves it are those of the same network that does not."""
    model, x, y = Written(forward), torch.rand(3, 4), torch.tensor([0, 1, 2])
    same = [
        lambda linear, x: linear(x).relu(),
        lambda linear, x: linear(x).relu() - linear(x),
        lambda linear, x: 5 * linear(x).relu(),
        lambda linear, x: linear(x).relu(),
        lambda linear, x: (linear(x).relu() + linear(2 * x).relu()) / 2,
    ]
    outputs = [Written(other) for other in same]
    for other in outputs:
        other.linear = model.linear
    twin = next(other for other in outputs if torch.allclose(other(x), model(x), atol=1e-6))
    threat = Threat(eps=0.05)
    for method in ("crown-ibp", "crown"):
        mine, theirs = (certificates.certify(m, x, y, threat=threat, method=method).margin for m in (model, twin))
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_normalisation_is_part_of_the_network():
    model, x = zoo.network("relu"), torch.rand(4, *zoo.SHAPE)
    wrapped = Normalized(model, [0.5] * 3, [0.25] * 3)
    y = wrapped(x).argmax(1)
    plain = certificates.certify(model, (x - 0.5) / 0.25, y, threat=Threat(eps=0.04, box=(-2.0, 2.0)))
    inside = certificates.certify(wrapped, x, y, threat=Threat(eps=0.01))
    torch.testing.assert_close(inside.margin, plain.margin, atol=1e-4, rtol=1e-4)


def test_log_softmax_and_a_single_logit():
    network, x = zoo.mlp(0), torch.rand(6, 4)
    y = network(x).argmax(1)
    logits = certificates.certify(network, x, y, threat=Threat(eps=0.05)).margin
    logged = certificates.certify(nn.Sequential(network, nn.LogSoftmax(1)), x, y, threat=Threat(eps=0.05)).margin
    torch.testing.assert_close(logged, logits, atol=1e-4, rtol=1e-4)
    single = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    two = nn.Sequential(single, nn.Linear(1, 2))
    with torch.no_grad():
        two[1].weight.copy_(torch.tensor([[0.0], [1.0]])), two[1].bias.zero_()
    y = (single(x)[:, 0] > 0).long()
    for method in ("ibp", "crown"):
        found = [certificates.certify(m, x, y, threat=Threat(eps=0.05), method=method).margin for m in (single, two)]
        torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("forward", "line"),
    [
        (lambda linear, x: linear(x) if x.sum() > 0 else -linear(x), "decides by the values of the input"),
        (lambda linear, x: linear(x) - linear(x).mean(0), "depends on the other inputs"),
        (lambda linear, x: linear(x) + 0.1 * torch.randn(3), "computes something else each time"),
        (lambda linear, x: linear(x).sort(1).values, "cannot bound sort in the network's own forward"),
        (lambda linear, x: torch.where(linear(x) > 0, linear(x), 0.1), "cannot bound gt"),
        (lambda linear, x: linear(x).sign(), "cannot bound sign"),
        (lambda linear, x: torch.div(linear(x), 0.1, rounding_mode="floor"), r"cannot bound div.*it rounds \(floor\)"),
        (lambda linear, x: linear(x).int().float(), "cannot bound _to_copy.*makes int32 of inputs in float32"),
        (lambda linear, x: linear(x).bfloat16().float(), "makes bfloat16 of inputs in float32"),
        (lambda linear, x: linear(x).double().relu().float(), "makes float64 of inputs in float32"),
        (lambda linear, x: linear(x) + linear(x).sum(1, keepdim=True, dtype=torch.float64), "makes float64"),
        (lambda linear, x: F.elu(linear(x), -1.0), "cannot bound elu.*positive settings"),
        (lambda linear, x: F.celu(linear(x), -1.0), "cannot bound celu.*positive settings"),
        (lambda linear, x: F.softplus(linear(x), 1.0, 0.1), "cannot bound softplus.*threshold of 15"),
        (lambda linear, x: F.threshold(linear(x), 0.1, 0.0), "cannot bound threshold.*it jumps"),
        (lambda linear, x: 2 ** linear(x), "cannot bound pow.*no bounds are known"),
        (lambda linear, x: torch.maximum(linear(x)[:, :1], torch.zeros(3)), "cannot bound maximum.*it repeats"),
        (lambda linear, x: F.avg_pool1d(linear(x), 1).clamp(max=linear(x)), "cannot bound clamp.*depend on the input"),
        (lambda linear, x: linear(x) + sum(linear(x).flatten().tolist()), "cannot follow the operations"),
        (lambda linear, x: x @ x.T[:, :3] if len(x) > 3 else linear(x), "depends on the other inputs"),
        (lambda linear, x: linear.bias.expand(len(x), 3) * 1, "does not depend on its input"),
    ],
)
def test_networks_that_cannot_be_bounded_are_refused_by_name(forward, line):
    with pytest.raises(UserError, match=line):
        certificates.certify(Written(forward), torch.rand(5, 4), torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize(
    ("forward", "line"),
    [
        (lambda linear, x: linear(x) * x.mean(), "depends on the other inputs"),
        (lambda linear, x: linear(x) + torch.from_numpy(np.sin(x.detach().numpy()))[:, :3], "not those of torch alone"),
    ],
)
def test_one_input_does_not_hide_what_depends_on_others_or_on_its_values(forward, line):
    with pytest.raises(UserError, match=line):
        certificates.certify(Written(forward), torch.rand(1, 4), torch.zeros(1, dtype=torch.long))


def test_bounds_that_overflow_show_nothing():
    """Infinite constants make intervals of NaN, from which nothing follows."""
    mask = torch.tensor([0.0, 0.0, -torch.inf])
    model = Written(lambda linear, x: linear(x) + (linear(x) + mask).amax(1, keepdim=True) * torch.arange(3))
    for method in BOUNDING:
        found = certificates.certify(model, torch.rand(4, 4), torch.zeros(4, dtype=torch.long), method=method)
        assert not found.verified.any()
        assert not found.margin.isnan().any()


def test_the_layer_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.LayerNorm(4)), nn.Linear(4, 3))
    with pytest.raises(UserError, match=r"cannot bound native_layer_norm in layer 1\.0: no bounds are known of it"):
        certificates.certify(model, torch.rand(2, 4), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"method": "crow"}, "there is no verifier 'crow'.*crown"),
        ({"method": "alpha-crown", "step": 3}, "alpha-crown has no setting 'step'.*steps"),
        ({"method": "alpha-crown", "steps": 0}, "steps must be a whole number"),
        ({"method": certificates.CROWN(), "steps": 3}, "give settings where the verifier is made"),
        ({"task": tasks.Regression()}, "certificates are for networks that classify"),
        ({"threat": Threat(eps=float("inf"), box=None)}, "a certificate needs a finite eps or a box"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
    ],
)
def test_settings_that_mean_nothing(settings, line):
    with pytest.raises(UserError, match=line):
        certificates.certify(zoo.mlp(0), torch.rand(2, 4), torch.zeros(2, dtype=torch.long), **settings)


def test_no_inputs():
    none = certificates.certify(zoo.mlp(0), torch.rand(0, 4), torch.zeros(0, dtype=torch.long))
    assert none.verified.shape == none.margin.shape == (0,)


def test_a_recorded_graph_follows_the_weights():
    model, x = zoo.network("weight norm"), torch.rand(3, *zoo.SHAPE)
    graph = record(model, x[:1], lambda output: output)
    torch.testing.assert_close(graph.run(x), model(x))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    graph.renew()
    torch.testing.assert_close(graph.run(x), model(x))
    graph.run(x).sum().backward()
    mine = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    for got, parameter in zip(mine, model.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, atol=1e-4, rtol=1e-4)
