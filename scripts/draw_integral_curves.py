"""Draws docs/integral-curves.svg: in one dimension curves of a neural ODE do not cross, those of residual blocks may.

    python scripts/draw_integral_curves.py docs/integral-curves.svg

Both learn to map x to -x on [-1, 1], by Adam from the same seed. The ODE dx/dt = f(t, x) is solved by Euler steps that
are short for its f, so it keeps the order of its starts and cannot learn that; ten residual blocks of their own weights
can, by letting their curves cross. Yan et al. (ICLR 2020) explain the robustness of ODENets by this: between two curves
that were learned, every other one stays.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

from buttress.models.blocks.ode import crossings, integrate
from buttress.report.stills.picture import style, to_svg

STEPS, WIDTH, CURVES = 10, 16, 21


def network(inputs):
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))


class Equation(nn.Module):
    """States at all times of dx/dt = f(t, x), by ten times as many Euler steps as there are blocks beside it."""

    def __init__(self):
        super().__init__()
        self.f = network(2)

    def forward(self, x):
        times = torch.linspace(0, 1, STEPS + 1).tolist()
        return integrate(self.field, x, times, solver="euler", step=0.1 / STEPS)

    def field(self, t, x):
        return self.f(torch.cat([t.expand(len(x), 1), x], 1))


class Blocks(nn.Module):
    """States after each of the residual blocks, which have weights of their own."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(network(1) for _ in range(STEPS))

    def forward(self, x):
        states = [x]
        for part in self.parts:
            states.append(states[-1] + part(states[-1]))
        return torch.stack(states)


def trained(make, rounds=1500):
    torch.manual_seed(0)
    model, x = make(), torch.linspace(-1, 1, 64)[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(rounds):
        optimizer.zero_grad()
        loss = (model(x)[-1] + x).square().mean()
        loss.backward()
        optimizer.step()
    return model, float(loss.detach())


def draw(panels):
    with style():
        figure = Figure(figsize=(9.5, 4.8), layout="constrained")
        for axes, (name, states, loss) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
            changes = f"{crossings(states)} neighbours change places; mean squared error {loss:.2g}"
            axes.set(title=name, xlim=(0, 1), xlabel=f"time, or share of the blocks\n{changes}", ylabel="x")
            axes.tick_params(labelleft=True)
            for index, curve in enumerate(states.T.tolist()):
                shade = index / (CURVES - 1)
                colour = ((40 + 180 * shade) / 255, 90 / 255, (200 - 160 * shade) / 255)
                axes.plot([step / STEPS for step in range(STEPS + 1)], curve, color=colour, linewidth=1.2)
        return to_svg(figure, "Integral curves of a neural ODE and of residual blocks")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the picture is written")
    arguments = parser.parse_args()
    starts, panels = torch.linspace(-1, 1, CURVES)[:, None], []
    for title, make in (("Neural ODE", Equation), (f"{STEPS} residual blocks", Blocks)):
        model, loss = trained(make)
        with torch.no_grad():
            states = model(starts).squeeze(-1)
        panels.append((title, states, loss))
        print(f"{title}: {crossings(states)} neighbours change places, mean squared error {loss:.3g}")
    arguments.file.write_text(draw(panels))


if __name__ == "__main__":
    main()
