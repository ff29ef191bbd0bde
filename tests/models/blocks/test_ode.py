"""Solvers against closed forms, gradients against autograd, and what is said of settings that make no sense."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from buttress.attacks import Perturbation
from buttress.audits.layers import Layers
from buttress.errors import UserError
from buttress.layers.capture import layer_names
from buttress.layers.sustainability import sustainability
from buttress.layers.tolerance import tolerance
from buttress.models.blocks.ode import ADAPTIVE, FIXED, ODEBlock, crossings, integrate
from buttress.models.blocks.steady_state import SteadyBlock
from buttress.report.kinds import draw

FAR = {"rtol": 1e-9, "atol": 1e-11}


class Decay(nn.Module):
    """dz/dt = -a z, in float64."""

    def __init__(self, a=0.7):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, t, z):
        return -self.a * z


class Net(nn.Module):
    """A smooth field that knows the time."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.linear = nn.Linear(4, 3).double()

    def forward(self, t, z):
        return torch.tanh(self.linear(torch.cat([z, t.expand(len(z), 1)], 1)))


def start(rows=5, width=3):
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def waves(t, z):
    """dz/dt = z cos t, whose solution is z(0) exp(sin t)."""
    return z * t.cos()


@pytest.mark.parametrize("step", [0.1, 0.25])
def test_euler_is_a_power(step):
    z, count = start(), round(1 / step)
    found = integrate(Decay(0.7), z, (0.0, 1.0), step=step)
    assert torch.equal(found[0], z)
    torch.testing.assert_close(found[1], (1 - 0.7 * step) ** count * z, rtol=1e-12, atol=0)


def test_the_last_step_is_shortened():
    found = integrate(Decay(0.5), start(), (0.0, 0.7), step=0.3)[1]
    torch.testing.assert_close(found, (1 - 0.15) ** 2 * (1 - 0.05) * start(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_the_error_falls_with_the_order_of_the_solver(solver, order):
    z = start()
    exact = z * math.exp(math.sin(2.0))
    coarse, fine = (
        (integrate(waves, z, (0.0, 2.0), solver=solver, step=step)[1] - exact).norm() for step in (0.05, 0.025)
    )
    assert float((coarse / fine).log2()) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", ADAPTIVE)
def test_adaptive_solvers_stay_within_the_tolerance_forwards_and_backwards(solver):
    z, times = start(), (0.0, 0.5, 1.5)
    found = integrate(waves, z, times, solver=solver, rtol=1e-5, atol=1e-6)
    exact = torch.stack([z * math.exp(math.sin(t)) for t in times])
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)
    back = integrate(waves, found[-1], times[::-1], solver=solver, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(back[-1], z, rtol=3e-3, atol=3e-3)


def test_a_row_is_as_exact_beside_others_that_are_easy():
    """One row moves, 300 stand still: a mean over the batch would let the one go wrong."""

    def moves(t, z):
        return 20 * (8 * t).cos() * (torch.arange(len(z)) == 0)[:, None]

    alone, beside = (
        integrate(moves, torch.zeros(rows, 1, dtype=torch.float64), (0.0, 1.0), solver="bosh3", rtol=1e-6, atol=1e-4)
        for rows in (1, 301)
    )
    torch.testing.assert_close(beside[1, :1], alone[1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("solver", FIXED)
def test_states_go_on_from_states(solver):
    """z(1) from z(0.4), and times between on the grid change nothing: the semigroup of an autonomous field."""
    z, func = start(), Decay()
    whole = integrate(func, z, (0.0, 1.0), solver=solver, step=0.1)[1]
    parts = integrate(func, z, (0.0, 0.4, 0.4, 1.0), solver=solver, step=0.1)
    torch.testing.assert_close(parts[-1], whole, rtol=1e-12, atol=0)
    again = integrate(func, parts[1], (0.0, 0.6), solver=solver, step=0.1)[1]
    torch.testing.assert_close(again, whole, rtol=1e-12, atol=0)
    assert torch.equal(parts[1], parts[2])


@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
def test_the_adjoint_gives_the_gradients_of_autograd(solver):
    z, func = start().requires_grad_(), Net()
    gradients = []
    for adjoint in (False, True):
        # The discrete and the continuous gradient differ by the solver's own error.
        step = 0.001 if solver == "euler" else 0.02
        end = integrate(func, z, (0.0, 1.0), solver=solver, step=step, adjoint=adjoint, **FAR)[-1]
        gradients.append(torch.autograd.grad((end * torch.arange(1.0, 4)).sum(), [z, *func.parameters()]))
    tolerance_ = 5e-3 if solver == "euler" else 1e-6
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance_, atol=tolerance_)


def test_with_the_adjoint_the_steps_are_the_same():
    z, func = start(), Net()
    for solver in FIXED:
        plain, adjoint = (
            integrate(func, z, (0.0, 0.3, 0.95), solver=solver, step=0.2, adjoint=flag) for flag in (False, True)
        )
        torch.testing.assert_close(plain, adjoint, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_a_time_has_a_gradient(solver):
    """d z(T) / dT is the field at T."""
    z, func = start(), Decay()
    end = torch.tensor(0.83, dtype=torch.float64, requires_grad=True)
    found = integrate(func, z, [0.0, end], solver=solver, step=0.05, **FAR)[-1]
    (slope,) = torch.autograd.grad(found.sum(), end)
    torch.testing.assert_close(slope, func(end, found).sum().detach(), rtol=1e-5, atol=1e-8)


def test_a_block_can_be_solved_otherwise_after_training_and_says_how():
    block = ODEBlock(Decay())
    assert "t0=0, t1=1, solver='euler', step=0.1" in repr(block)
    z = start()
    coarse = block(z)
    block.step = 0.001
    exact = z * math.exp(-0.7)
    assert (block(z) - exact).abs().max() < 1e-3 < (coarse - exact).abs().max()
    block.solver, block.rtol, block.adjoint = "dopri5", 1e-4, True
    assert "solver='dopri5', rtol=0.0001, atol=0.001, adjoint=True" in repr(block)
    torch.testing.assert_close(block(z), exact, rtol=1e-3, atol=1e-3)
    again = pickle.loads(pickle.dumps(copy.deepcopy(block)))
    assert torch.equal(again(z), block(z))
    other = block.altered(solver="rk4")
    assert other.func is block.func
    assert block.solver == "dopri5"


def test_half_precision_goes_through_every_kind_of_solver():
    func = nn.Linear(3, 3).bfloat16()
    z = torch.ones(2, 3, dtype=torch.bfloat16)
    for solver in ("rk4", "dopri5"):
        found = integrate(lambda t, state: func(state).tanh(), z, (0.0, 1.0), solver=solver, rtol=0.1, atol=0.1)
        assert found.dtype == torch.bfloat16
        assert bool(found.isfinite().all())


def field(t, z):
    return torch.sin(3 * z) + 0.5 * t.cos()


def test_integral_curves_in_one_dimension_do_not_cross():
    starts = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6 - 3
    times = torch.linspace(0, 2, 41, dtype=torch.float64)
    for solver, step in (("euler", 0.05), ("rk4", 0.05), ("dopri5", 1.0)):
        states = integrate(field, starts, times, solver=solver, step=step)
        assert crossings(states) == 0
        assert float(states[-1].diff().abs().max()) > 1  # curves apart, not one point
    # |dh f'| above 1: one Euler step of length 1, a residual block, does not keep the order.
    assert crossings(integrate(field, starts, (0.0, 1.0), step=1.0)) > 0


def test_the_steady_state_term_is_the_sum_of_the_steps_lengths():
    block = SteadyBlock(Decay(0.7), (0.9, 1.5), step=0.05)
    z = start()
    end, moved = block(z, steady=True)
    torch.testing.assert_close(end, block(z), rtol=1e-12, atol=0)
    states = [integrate(Decay(0.7), z, (0.0, 0.9), step=0.05)[1]]
    for _ in range(12):
        states.append(states[-1] + 0.05 * -0.7 * states[-1])
    by_hand = sum(0.05 * 0.7 * state.abs() for state in states[:-1])
    torch.testing.assert_close(moved, by_hand, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("window", "times"), [((0.9, 1.5), (0.0, 0.9, 1.5)), ((1.0, 2.0), (0.0, 1.0, 2.0))])
@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
def test_where_the_field_is_nowhere_negative_the_term_is_the_difference_of_states(window, times, solver):
    class Rising(Net):
        def forward(self, t, z):
            return super().forward(t, z).relu()

    settings = {"solver": solver, "step": 0.05, "rtol": 1e-6, "atol": 1e-8}
    end, moved = SteadyBlock(Rising(), window, **settings)(start(), steady=True)
    _, before, after = integrate(Rising(), start(), times, **settings)
    # Adaptive steps stumble over the kinks of a ReLU.
    close = {"rtol": 1e-12, "atol": 1e-12} if solver != "dopri5" else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(moved, after - before, **close)
    assert bool(moved.max() > 0.1)
    torch.testing.assert_close(end, ODEBlock(Rising(), **settings)(start()), **close)


class Stiffening(nn.Module):
    """A network whose adaptive solver takes more steps where inputs are large."""

    def __init__(self):
        super().__init__()
        self.block = ODEBlock(Oscillation(), solver="bosh3", rtol=1e-2, atol=1e-2)
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(2))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.block(x))


class Oscillation(nn.Module):
    """Turns the faster the farther from 0."""

    def __init__(self):
        super().__init__()
        self.act = nn.Tanh()

    def forward(self, t, z):
        speed = 1 + 9 * self.act(z.square().sum(1, keepdim=True))
        return speed * torch.stack([-z[:, 1], z[:, 0]], 1)


def test_layers_of_a_solver_that_chooses_its_steps_are_paired_where_they_can_be(shrink):
    model = Stiffening().eval()
    x = start(2, 2).float()
    data = [(x, model(x).argmax(1))]
    profile = sustainability(model, data, {"shrink": shrink}, ["block.func.act*", "block"])
    missing = profile.unpaired["shrink"]
    assert missing
    assert set(missing) < set(profile.layers)
    paired = [index for index, name in enumerate(profile.layers) if name not in missing]
    assert bool(profile.values[0, paired].isfinite().all())
    block = sustainability(model, data, {"shrink": shrink})  # in the place of what is inside
    assert block.layers == ["block"]
    assert block.unpaired == {}
    assert bool(block.values.isfinite().all())
    assert layer_names(model, x[:1], "learnable") == ["block", "fc"]
    called = layer_names(model, x[:1], "block.func.*")
    late = next(name for name in missing if name in called)  # that only the clean pass calls
    found = tolerance(model, data, shrink, [late, "block"], steps=1, bisections=1)
    assert found.layers == [late, "block"]
    assert bool(found.rho[0].isnan().all() and found.displacement[0].isnan().all())
    assert bool(found.rho[1].isfinite().any() and found.displacement[1].isfinite().all())
    finding = Layers(perturbations=[shrink], tolerance_inputs=0, patching_inputs=0)(model, data)
    assert (finding.data["layers"], finding.data["choosing_steps"]) == (["block"], ["block"])
    assert "block: chooses its steps" in draw({"net": finding}).html
    model.block.solver = "euler"
    # The solver has one more place that calls it, for other settings.
    assert layer_names(model, x[:1])[0] == "block.func.act#1"
    assert (
        Layers(perturbations=[shrink], tolerance_inputs=0, patching_inputs=0)(model, data).data["choosing_steps"] == []
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"solver": "eulr"}, "solver must be one of .*euler.*; got 'eulr'"),
        ({"step": 0}, "step must be a finite number above 0; got 0"),
        ({"rtol": math.nan}, "rtol must be a finite number above 0; got nan"),
        ({"atol": True}, "atol must be a finite number above 0; got True"),
        ({"adjoint": "no"}, "adjoint must be True or False; got 'no'"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings, line):
    with pytest.raises(UserError, match=line):
        ODEBlock(Decay(), **settings)
    with pytest.raises(UserError, match=line):
        integrate(Decay(), start(), (0.0, 1.0), **settings)


def test_times_that_make_no_sense_are_told():
    with pytest.raises(UserError, match="needs the time at which it starts; got no times"):
        integrate(Decay(), start(), [])
    with pytest.raises(UserError, match=r"dopri5 needs times that only rise or only fall; got \[0.0, 1.0, 0.5\]"):
        integrate(Decay(), start(), [0.0, 1.0, 0.5], solver="dopri5")
    with pytest.raises(UserError, match="window must begin between 0 and 1 and end above 1"):
        SteadyBlock(Decay(), (0.5, 1.0))
    assert torch.equal(integrate(Decay(), start(), [0.3], solver="dopri5")[0], start())


def test_an_adaptive_solver_that_cannot_go_on_says_what_to_do():
    with pytest.raises(UserError, match=r"dopri5 cannot go on \(.*\): raise rtol and atol"):
        integrate(lambda t, z: z * torch.nan, start(), (0.0, 1.0), solver="dopri5")


def test_tolerances_below_rounding_are_refused_where_no_step_could_meet_them():
    asked = {"solver": "dopri5", "rtol": 1e-12, "atol": 1e-12}
    with pytest.raises(UserError, match=r"rtol and atol are 1e-12 and 1e-12, and a state is known to 1.2e-07 at best"):
        integrate(Decay().float(), start().float(), (0.0, 1.0), **asked)
    end = integrate(Decay().double(), start().double(), (0.0, 1.0), **asked)[-1]
    assert bool(end.isfinite().all())


@pytest.fixture
def shrink():
    """A perturbation that leaves a thirtieth of each value."""

    class Shrink(Perturbation):
        def perturb(self, oracle, x, y, random):
            return x / 30

    return Shrink()
