"""A mistake in an attack of a user's own never passes for robustness, alone or inside any other attack."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from buttress import registry
from buttress.attacks import FGSM, Attack, Gaussian, Perturbation
from buttress.errors import UserError
from buttress.threat import NOT_GIVEN, Threat


@dataclass(frozen=True, kw_only=True)
class Wrong(Attack):
    """Returns what its test says."""

    threat: Threat = NOT_GIVEN
    how: str = "nan"

    def perturb(self, oracle, x, y, random):
        oracle.loss_and_grad(x)
        return WRONG[self.how](x, y)


def first_row(x, value):
    x = x.clone()
    x[0] = value
    return x


WRONG = {
    "nan": lambda x, y: first_row(x, float("nan")),
    "infinity": lambda x, y: first_row(x, float("inf")),
    "shape": lambda x, y: x.flatten(1),
    "broadcast": lambda x, y: x[:, :, :1],
    "count": lambda x, y: x[:-1],
    "one": lambda x, y: x.mean(0, keepdim=True),
    "dtype": lambda x, y: x.double(),
    "layout": lambda x, y: x.to_sparse(),
    "array": lambda x, y: x.numpy(),
    "pair": lambda x, y: (x, y),
    "nothing": lambda x, y: None,
    "in place": lambda x, y: x.add_(0.01),
    "labels in place": lambda x, y: (y.zero_(), x)[1],
}
TOLD = {
    "nan": "returned NaN or infinity for 1 of 6 inputs, which would count as robust",
    "infinity": "returned NaN or infinity for 1 of 6 inputs",
    "shape": r"returned points of shape \(6, 36\) for inputs of shape \(6, 1, 6, 6\)",
    "broadcast": r"returned points of shape \(6, 1, 1, 6\)",
    "count": r"returned points of shape \(5, 1, 6, 6\)",
    "one": r"returned points of shape \(1, 1, 6, 6\)",
    "dtype": r"returned torch.float64 on cpu for inputs of torch.float32 on cpu: return points.to\(x\)",
    "layout": r"returned a tensor of layout torch.sparse_coo: return points.to_dense\(\)",
    "array": "returned a ndarray: perturb must return the moved inputs, a tensor",
    "pair": "returned a tuple: perturb must",
    "nothing": "returned a NoneType: perturb must",
    "in place": r"writes over x that it is given: begin with x.clone\(\)",
    "labels in place": "writes over y that it is given",
}
NAME = rf"{__name__.rpartition('.')[2]}:Wrong "


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def batch():
    return torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3 + 0


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("call", ["call", "craft"])
def test_what_is_no_point_for_each_input_is_an_error_that_names_the_attack(how, call):
    attack, (x, y) = Wrong(threat=Threat(eps=0.1), how=how), batch()
    before = x.clone(), y.clone()
    with pytest.raises(UserError, match=NAME + TOLD[how]):
        (attack if call == "call" else attack.craft)(network(), x, y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def around():
    """Every registered attack and noise that takes another one, with the name of that option."""
    for name in registry.attack.names():
        kind = registry.attack.get(name)
        yield from ((name, field.name) for field in dataclasses.fields(kind) if isinstance(field.default, Perturbation))


MORE = {"transfer": lambda: {"surrogate": network()}, "ensemble": lambda: {"models": [network()]}}


@pytest.mark.parametrize(("name", "option"), list(around()))
@pytest.mark.parametrize("how", ["nan", "count", "in place"])
def test_so_it_is_inside_every_other_attack(name, option, how):
    more = MORE.get(name, dict)()
    outer = registry.attack.get(name)(**{option: Wrong(threat=Threat(eps=0.1), how=how)}, **more)
    x, y = batch()
    with pytest.raises(UserError, match=NAME):
        outer(network(), x, y)


def test_attacks_that_take_others_were_found():
    assert {"eot", "bpda", "transfer", "ensemble", "variant"} <= {name for name, _ in around()}


@dataclass(frozen=True, kw_only=True)
class Brighter(Perturbation):
    """A noise without a threat, so that nothing puts it back into the box."""

    box: tuple[float, float] | None = (0, 1)

    def perturb(self, oracle, x, y, random):
        return x + 0.5


def test_a_noise_that_leaves_its_box_is_told():
    x, y = batch()
    with pytest.raises(UserError, match=r"Brighter returned values from 0.5.* to 1.4.*, outside of its box \(0, 1\)"):
        Brighter()(network(), x, y)
    assert torch.equal(Brighter(box=None)(network(), x, y).x_adv, x + 0.5)


@dataclass(frozen=True, kw_only=True)
class Far(Attack):
    threat: Threat = NOT_GIVEN
    times: float = 1.0

    def perturb(self, oracle, x, y, random):
        return x + self.times * self.threat.eps * oracle.loss_and_grad(x)[1].sign()


def test_points_far_outside_the_threat_are_put_inside_and_told_once(caplog):
    x, y = batch()
    inside, far = Far(threat=Threat(eps=0.1)), Far(threat=Threat(eps=0.1), times=20)
    reference = FGSM(threat=Threat(eps=0.1))(network(), x, y)
    for attack in (inside, far, far):
        assert torch.equal(attack(network(), x, y).x_adv, reference.x_adv)
    (record,) = caplog.records
    line = "Far returns points up to 2 away from their inputs, where linf 0.1 is allowed: they are put inside the "
    assert line in record.getMessage()


def test_attacks_of_this_package_are_called_as_before():
    x, y = batch()
    assert Gaussian(std=0.1)(network(), x, y).x_adv.shape == x.shape
