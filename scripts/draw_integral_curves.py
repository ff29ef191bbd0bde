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
from torch import nn

from buttress.models.blocks.ode import crossings, integrate
from buttress.report.stills.svg import FAINT, Canvas, Plot

STEPS, WIDTH, CURVES = 10, 16, 21
LEFT, TOP, SIDE, GAP = 60.0, 50.0, 300.0, 90.0


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
    title = "Integral curves of a neural ODE and of residual blocks"
    canvas = Canvas(LEFT + 2 * (SIDE + GAP), TOP + SIDE + 50, title)
    reach = 1.05 * max(float(states.abs().max()) for _, states, _ in panels)
    for column, (title, states, loss) in enumerate(panels):
        left = LEFT + column * (SIDE + GAP)
        plot = Plot(canvas, (left, TOP, SIDE, SIDE), (0, 1), (-reach, reach))
        plot.axes("time, or share of the blocks", "x", grid=False)
        canvas.text(left, 20, title, bold=True, size=13)
        told = f"{crossings(states)} neighbours change places; mean squared error {loss:.2g}"
        canvas.text(left, 38, told, fill=FAINT)
        for index, curve in enumerate(states.T.tolist()):
            shade = index / (CURVES - 1)
            colour = f"#{round(40 + 180 * shade):02x}{90:02x}{round(200 - 160 * shade):02x}"
            canvas.line([plot.at(step / STEPS, value) for step, value in enumerate(curve)], colour, 1.3)
    return canvas.render()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the picture is written")
    chosen = parser.parse_args()
    starts, panels = torch.linspace(-1, 1, CURVES)[:, None], []
    for title, make in (("Neural ODE", Equation), (f"{STEPS} residual blocks", Blocks)):
        model, loss = trained(make)
        with torch.no_grad():
            states = model(starts).squeeze(-1)
        panels.append((title, states, loss))
        print(f"{title}: {crossings(states)} neighbours change places, mean squared error {loss:.3g}")
    chosen.file.write_text(draw(panels))


if __name__ == "__main__":
    main()
