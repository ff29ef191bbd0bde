"""Whatever a network does with its tensors, and whatever its caller has switched on, the same points are found."""

import dataclasses

import pytest
import torch
from tests.attacks.members import somewhere
from tests.networks import InPlace, Plain, Reusing, Squeezing, everything_switched_on
from torch import nn

from buttress import registry
from buttress.attacks import PGD, Square
from buttress.errors import UserError
from buttress.models import Ensemble
from buttress.threat import Threat

NAMES = registry.attack.names()
SHAPE = (1, 6, 6)
pytestmark = pytest.mark.filterwarnings("ignore:.*DLR needs")


def network(kind, nets, dtype=torch.float32, seed=3):
    hidden = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4)), seed)
    return kind(hidden.to(dtype)).eval()


def batch(model, n=6):
    """Inputs that the network classifies correctly, but for the last."""
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x.clone()).argmax(-1).reshape(n)
    return x, torch.cat([y[:-1], (y[-1:] + 1) % 4]) if n > 1 else y


def assert_same(result, expected):
    for field in dataclasses.fields(expected):
        mine, other = getattr(result, field.name), getattr(expected, field.name)
        assert torch.equal(mine, other) if isinstance(other, torch.Tensor) else mine == other, field.name


@pytest.mark.parametrize("kind", [InPlace, Reusing])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_may_write_into_its_input_and_use_its_output_again(nets, name, kind):
    plain, other = network(Plain, nets), network(kind, nets)
    x, y = batch(plain)
    before = x.clone()
    for search in ("full", "first"):
        result = somewhere(name, other)(other, x, y, search=search)
        assert torch.equal(x, before)
        assert_same(result, somewhere(name, plain)(plain, x, y, search=search))


def test_a_network_that_begins_with_an_in_place_relu_gives_gradients():
    """The points of one step along the gradient, 0 where the ReLU cuts; a linear network's are known."""
    weight = torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2, bias=False))
    model[1].weight.data.copy_(weight)
    x = torch.tensor([[0.5, 0.5, -0.5]])
    attack = PGD(threat=Threat(eps=0.25, box=(-1.0, 1.0)), steps=1, step_size=0.25, start="zero")
    torch.testing.assert_close(attack(model, x, torch.tensor([0])).x_adv, torch.tensor([[0.25, 0.75, -0.5]]))
    assert torch.equal(x, torch.tensor([[0.5, 0.5, -0.5]]))


def switched_on():
    """What a caller may have switched on."""
    return (
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_the_caller_has_switched_on_changes_nothing_and_stays_on(nets, name):
    model = network(Plain, nets)
    x, y = batch(model)
    attack = somewhere(name, network(Plain, nets))
    expected = attack(model, x, y)
    with everything_switched_on():
        before = switched_on()
        result = attack(model, x, y)
        assert switched_on() == before
    assert_same(result, expected)
    with torch.inference_mode():
        before = switched_on()
        result = attack(model, x.clone(), y.clone())
        assert switched_on() == before
    assert_same(result, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_may_squeeze_a_batch_of_one(nets, name):
    plain, squeezing = network(Plain, nets), network(Squeezing, nets)
    x, y = batch(plain, 1)
    assert_same(somewhere(name, squeezing)(squeezing, x, y), somewhere(name, plain)(plain, x, y))


def test_one_logit_may_be_squeezed_away_altogether():
    """From -0.5 to 0: the boundary of a single logit is 0.5 away."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten(0))
    model[0].weight.data.fill_(1.0)

    def squeezed(x):
        return model(x).squeeze()

    x, y = torch.tensor([[-0.5]]), torch.tensor([0])
    for eps, success in ((0.49, False), (0.51, True)):
        result = PGD(threat=Threat(eps=eps, box=(-1.0, 1.0)))(squeezed, x, y)
        assert result.success.tolist() == [success]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_half_precision_is_judged_as_it_computes(nets, name, dtype):
    model = network(Plain, nets, dtype)
    x, y = batch(network(Plain, nets))
    result = somewhere(name, model)(model, x, y)
    assert result.x_adv.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(result.success, model(result.x_adv.to(dtype)).argmax(1) != y)


def test_half_precision_with_batch_norm_in_float32(nets):
    """The usual recipe: matrices in half precision, statistics in float32."""
    inner = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)), 3)
    model = inner.half()
    model[2].float()
    x, y = torch.rand(6, *SHAPE), torch.arange(6) % 4
    result = PGD(threat=Threat(eps=0.3), steps=3)(model.eval(), x, y)
    assert result.backwards.tolist() == [3] * 6
    assert result.x_adv.dtype == torch.float32


def test_a_network_without_parameters_has_the_inputs_data_type_for_its_default():
    def network(x):
        return x.flatten(1) @ torch.ones(36, 2) * torch.tensor([1.0, -1.0])  # of torch's default type

    x, y = torch.rand(4, *SHAPE, dtype=torch.float64), torch.zeros(4, dtype=torch.long)
    torch.set_default_dtype(torch.float64)
    try:
        result = PGD(threat=Threat(eps=0.1))(network, x, y)
    finally:
        torch.set_default_dtype(torch.float32)
    assert not result.success.any()


@pytest.mark.parametrize("kind", [InPlace, Reusing])
def test_members_of_an_ensemble_may_do_so_too(nets, kind):
    """Two that fill the same memory would be one."""
    plain, others = ([network(k, nets, seed=seed) for seed in (3, 4)] for k in (Plain, kind))
    if kind is Reusing:
        others[1].memory = others[0].memory = torch.empty(6, 4)
    x, y = batch(plain[0])
    for attack in (PGD(threat=Threat(eps=0.1)), Square(threat=Threat(eps=0.1), queries=20)):
        assert_same(attack(Ensemble(others), x, y), attack(Ensemble(plain), x, y))


def test_statistics_made_in_inference_mode_are_no_hindrance(nets):
    model, x, y = nets.awkward(36).eval(), torch.rand(4, *SHAPE), torch.arange(4)
    expected = PGD(threat=Threat(eps=0.1))(model, x, y)
    with torch.inference_mode():
        made = model[2].running_mean.clone()
    model[2].running_mean = made
    assert_same(PGD(threat=Threat(eps=0.1))(model, x, y), expected)
    assert model[2].running_mean is made


def frozen(model, x):
    return torch.jit.freeze(torch.jit.script(model))


def exported(model, x):
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("inputs")},)).module()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("program", [frozen, exported])
def test_programs_whose_mode_cannot_be_switched_are_used_as_they_were_made(nets, program):
    model = network(Plain, nets)
    x, y = batch(model)
    alone = program(model, x)
    wrapped = nn.Sequential(alone, nn.Dropout(0.5))
    for attack in (PGD(threat=Threat(eps=0.1)), Square(threat=Threat(eps=0.1), queries=20)):
        expected = attack(model, x, y)
        for candidate in (alone, wrapped):
            result = attack(candidate, x, y)
            assert torch.equal(result.success, expected.success)
            torch.testing.assert_close(result.x_adv, expected.x_adv, rtol=0, atol=1e-6)
    assert wrapped.training
    assert wrapped[1].training
    with pytest.raises(UserError, match="exported or frozen, so it cannot be put into train mode"):
        PGD()(alone, x, y, mode="train")
