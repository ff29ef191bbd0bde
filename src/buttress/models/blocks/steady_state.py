"""What a neural ODE still moves after its end: the steady-state term of TisODE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.blocks.ode import ODEBlock, integrate

WINDOWS: dict[str, tuple[float, float]] = {"release": (0.9, 1.5), "paper": (1.0, 2.0)}


class SteadyBlock(ODEBlock):
    """An ODE that can also tell how far the state still moves around and after its end.

    With S the integral of |func| over the window, a start a little later on the same curve ends within S of
    this one's end, element by element, if the dynamics do not know the time (Yan et al., ICLR 2020, section 4).

    Args:
        func: a module (t, z) -> dz/dt.
        window: from where to where that is summed, in shares of the time from ``t0`` to ``t1``.
        **settings: as of `ODEBlock`.

    Raises:
        UserError: for a window that does not begin in [0, 1] and end above 1; and as `ODEBlock`.
    """

    def __init__(self, func: nn.Module, window: tuple[float, float], **settings: Any) -> None:
        super().__init__(func, **settings)
        if len(window) != 2 or not 0 <= window[0] <= 1 < window[1]:
            raise UserError(f"window must begin between 0 and 1 and end above 1, in shares of T; got {window!r}")
        self.window = window

    def forward(self, z: Tensor, steady: bool = False) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]  # a pair with steady
        """z(t1), of the shape of ``z``; with ``steady`` also S, the sum of h |func| over the window, in that shape."""
        if not steady:
            return super().forward(z)
        begin, end = (self.t0 + share * (self.t1 - self.t0) for share in self.window)
        if begin > self.t0:
            z = self.states(z, (self.t0, begin))[-1]
        split = z.shape[1]

        def both(t: Tensor, pair: Tensor) -> Tensor:
            velocity: Tensor = self.func(t, pair[:, :split])
            return torch.cat([velocity, velocity.abs()], 1)

        marks = (begin, self.t1, end) if begin < self.t1 else (begin, end)
        # By autograd, for the weights of what is no module are unknown to the adjoint equation.
        settings = {**self.settings, "adjoint": False}
        states = integrate(both, torch.cat([z, torch.zeros_like(z)], 1), marks, **settings)
        return states[-2][:, :split], states[-1][:, split:]
