"""Ordinary differential equations as layers: fixed steps of our own, adaptive steps and the adjoint by torchdiffeq."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.validation import one_of, positive, switch

Field = Callable[[Tensor, Tensor], Tensor]
Time = float | Tensor
Step = Callable[[Field, Time, Time, Tensor], Tensor]

ADAPTIVE = ("adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2")
_MOST_STEPS = 2_000  # between two times, before an adaptive solver gives up; memory grows with them
_SLACK = 1e-6  # share of a step by which rounding may exceed a whole number of steps


def integrate(
    func: Field,
    z: Tensor,
    times: Sequence[Time] | Tensor,
    *,
    solver: str = "euler",
    step: float = 0.1,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    adjoint: bool = False,
) -> Tensor:
    """The solution of dz/dt = func(t, z) at several times.

    Fixed steps start afresh at each time, and the last one before the next time is shortened to end there; times that
    lie on the grid change nothing. Gradients flow through the steps (also into times that are tensors), unless
    ``adjoint``. Adaptive solvers choose one step for the whole batch, such that its worst row stays within the
    tolerance: what an input gives depends, within the tolerance, on what else is in the batch.

    Args:
        func: (t, z) -> dz/dt of z's shape; t has no dimensions.
        z: (N, ...) the state at the first time.
        times: in the order in which they are wanted, forwards or backwards; fixed steps allow equal ones.
        solver: "euler", "midpoint" or "rk4" (Kutta's 3/8 rule, as in torchdiffeq), which take fixed steps; or
            "adaptive_heun", "bosh3", "dopri5", "dopri8" or "fehlberg2", which choose their own.
        step: length of a fixed step, in units of time.
        rtol: relative error that adaptive steps may make, by row (root mean square).
        atol: absolute error that they may make on top.
        adjoint: gradients by solving the adjoint equation backwards (Chen et al., NeurIPS 2018), which needs little
            memory and is as exact as the solver; weights get them where ``func`` is a module.

    Returns:
        (T, N, ...) the states, the first of them ``z``.

    Raises:
        UserError: for an unknown solver, a step or tolerance that is not above 0, tolerances of an adaptive solver both
            below rounding, no times, or an adaptive solver that finds no step small enough or takes 2,000.
    """
    _check(solver, step, rtol, atol, adjoint)
    marks: list[Time] = list(times)
    if not marks:
        raise UserError("an integration needs the time at which it starts; got no times")
    if solver in ADAPTIVE:
        return _adaptive(func, z, marks, solver, rtol, atol, adjoint)
    states = [z]
    for start, end in pairwise(marks):
        if adjoint:
            z = _fixed_adjoint(func, z, start, end, solver, step)
        else:
            for t, h in _grid(start, end, step):
                z = FIXED[solver](func, t, h, z)
        states.append(z)
    return torch.stack(states)


class ODEBlock(nn.Module):
    """z(t0) -> z(t1) with dz/dt = func(t, z): a neural ODE (Chen et al., NeurIPS 2018).

    Solver, step, tolerances and times are plain attributes and may be changed after training.

    Args:
        func: a module (t, z) -> dz/dt.
        t0: time of the state that comes in.
        t1: where the state is read.
        solver: see `integrate`, this and the next four.
        step: length of a fixed step.
        rtol: relative tolerance of adaptive solvers.
        atol: absolute one.
        adjoint: gradients by the adjoint equation; attack the network with False.

    Raises:
        UserError: as `integrate`.
    """

    def __init__(
        self,
        func: nn.Module,
        t0: float = 0.0,
        t1: float = 1.0,
        solver: str = "euler",
        step: float = 0.1,
        rtol: float = 1e-3,
        atol: float = 1e-3,
        adjoint: bool = False,
    ) -> None:
        super().__init__()
        _check(solver, step, rtol, atol, adjoint)
        self.func, self.t0, self.t1 = func, t0, t1
        self.solver, self.step, self.rtol, self.atol, self.adjoint = solver, step, rtol, atol, adjoint

    @property
    def settings(self) -> dict[str, Any]:
        """How it is solved, as `integrate` takes it."""
        return {name: getattr(self, name) for name in ("solver", "step", "rtol", "atol", "adjoint")}

    @property
    def chooses_steps(self) -> bool:
        """Whether its solver does: what is inside then runs at other times for another input; see `layers.select`."""
        return self.solver in ADAPTIVE

    def altered(self, **settings: Any) -> ODEBlock:
        """The same equation, sharing ``func``, solved in another way; what is not named stays."""
        return ODEBlock(self.func, self.t0, self.t1, **{**self.settings, **settings})

    def forward(self, z: Tensor) -> Tensor:
        """The state at ``t1``, of the shape of ``z``."""
        return self.states(z, (self.t0, self.t1))[-1]

    def states(self, z: Tensor, times: Sequence[Time] | Tensor) -> Tensor:
        """(T, N, ...) the states at these times; ``z`` is the first of them."""
        return integrate(self.func, z, times, **self.settings)

    def extra_repr(self) -> str:
        """Times, solver and what matters to it."""
        how = f"rtol={self.rtol:g}, atol={self.atol:g}" if self.solver in ADAPTIVE else f"step={self.step:g}"
        return f"t0={self.t0:g}, t1={self.t1:g}, solver={self.solver!r}, {how}" + ", adjoint=True" * self.adjoint


def crossings(states: Tensor) -> int:
    """How often curves of one dimension have changed places.

    Solutions of one equation with different starts never meet, so along exact curves this is 0; steps that are too long
    for the field, such as the one step of a residual block, can let them cross. In more dimensions curves do not meet
    either, but their projections may, so this says nothing there.

    Args:
        states: (T, N) N curves at T times.

    Returns:
        Over all later times, neighbours at the start whose order is reversed.
    """
    ordered = states[:, states[0].argsort()]
    return int((ordered.diff(dim=1) < 0).sum())


def _euler(func: Field, t: Time, h: Time, z: Tensor) -> Tensor:
    return z + h * func(_clock(t, z), z)


def _midpoint(func: Field, t: Time, h: Time, z: Tensor) -> Tensor:
    half = z + h / 2 * func(_clock(t, z), z)
    return z + h * func(_clock(t + h / 2, z), half)


def _rk4(func: Field, t: Time, h: Time, z: Tensor) -> Tensor:
    k1 = func(_clock(t, z), z)
    k2 = func(_clock(t + h / 3, z), z + h / 3 * k1)
    k3 = func(_clock(t + 2 * h / 3, z), z + h * (k2 - k1 / 3))
    k4 = func(_clock(t + h, z), z + h * (k1 - k2 + k3))
    return z + h / 8 * (k1 + 3 * (k2 + k3) + k4)


FIXED: dict[str, Step] = {"euler": _euler, "midpoint": _midpoint, "rk4": _rk4}


def _clock(t: Time, z: Tensor) -> Tensor:
    return t.to(z) if isinstance(t, Tensor) else z.new_full((), t)


def _number(t: Time) -> float:
    return float(t.detach()) if isinstance(t, Tensor) else float(t)


def _grid(start: Time, end: Time, step: float) -> list[tuple[Time, Time]]:
    """Where each step begins, and its length."""
    length = _number(end) - _number(start)
    if not length:
        return []
    count = max(1, math.ceil(abs(length) / step - _SLACK))
    h = math.copysign(step, length)
    begins = [start + k * h for k in range(count)]
    return [*((t, h) for t in begins[:-1]), (begins[-1], end - begins[-1])]


def _adaptive(
    func: Field, z: Tensor, marks: list[Time], solver: str, rtol: float, atol: float, adjoint: bool
) -> Tensor:
    steps = [_number(b) - _number(a) for a, b in pairwise(marks)]
    if not (all(s > 0 for s in steps) or all(s < 0 for s in steps)):
        raise UserError(f"{solver} needs times that only rise or only fall; got {[_number(t) for t in marks]}")
    if not steps:
        return z[None]
    rounding = torch.finfo(torch.promote_types(z.dtype, torch.float32)).eps
    if max(rtol, atol) < rounding:
        raise UserError(
            f"rtol and atol are {rtol:g} and {atol:g}, and a state is known to {rounding:.2g} at best: raise one above"
        )
    options = {"norm": _worst_row, "max_num_steps": _MOST_STEPS}
    try:
        return _torchdiffeq(func, z, marks, adjoint, method=solver, rtol=rtol, atol=atol, options=options)
    except AssertionError as error:  # how torchdiffeq says that it cannot go on
        raise UserError(
            f"{solver} cannot go on ({error}): raise rtol and atol, now {rtol:g} and {atol:g}, or take fixed steps"
        ) from error


def _fixed_adjoint(func: Field, z: Tensor, start: Time, end: Time, solver: str, step: float) -> Tensor:
    if _number(start) == _number(end):
        return z

    def grid(_: Any, __: Any, t: Tensor) -> Tensor:
        """For the way back, too, which begins at the other end."""
        return torch.stack([*(_clock(begin, t) for begin, _ in _grid(t[0], t[-1], step)), t[-1]])

    return _torchdiffeq(func, z, [start, end], True, method=solver, options={"grid_constructor": grid})[-1]


def _torchdiffeq(func: Field, z: Tensor, marks: Iterable[Time], adjoint: bool, **settings: Any) -> Tensor:
    """The state is kept in float32 at least, for in half precision errors cannot be told from rounding."""
    from torchdiffeq import odeint, odeint_adjoint

    dtype = torch.promote_types(z.dtype, torch.float32)

    def field(t: Tensor, state: Tensor) -> Tensor:
        return func(t.to(z.dtype), state.to(z.dtype)).to(dtype)

    solve = odeint
    if adjoint:
        weights = func.parameters() if isinstance(func, nn.Module) else ()
        solve = partial(odeint_adjoint, adjoint_params=tuple(w for w in weights if w.requires_grad))
    wide = z.to(dtype)
    states: Tensor = solve(field, wide, torch.stack([_clock(t, wide) for t in marks]), **settings)
    return states.to(z.dtype)


def _worst_row(value: Tensor) -> Tensor:
    """Root mean square by row, of the worst row: no input hides behind the others of its batch."""
    rows = value.reshape(len(value) if value.dim() else 1, -1)
    return rows.abs().square().mean(1).max().sqrt()


def _check(solver: str, step: float, rtol: float, atol: float, adjoint: bool) -> None:
    one_of("solver", solver, [*FIXED, *ADAPTIVE])
    for name, value in (("step", step), ("rtol", rtol), ("atol", atol)):
        positive(name, value)
    switch("adjoint", adjoint)
