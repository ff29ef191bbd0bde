"""PGD on a network whose softmax saturates: seconds beside a plain loop's, whose backward pass fills with subnormals.

    python benchmarks/saturated.py

The logits of a fixed network are scaled until the other classes' probabilities leave the normal range of float32. A
plain loop then slows down many times on a CPU; the engine computes the loss in float64 and drops what is negligible, so
its time should stay flat.
"""

import statistics
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks import PGD
from buttress.threat import Threat

STEPS, STEP, ROUNDS = 3, 1e-4, 3


class Scaled(nn.Module):
    """A network's logits times a number."""

    def __init__(self, net, scale):
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x):
        return self.scale * self.net(x)


def plain(model, x, y):
    x_adv = x.clone()
    for _ in range(STEPS):
        x_adv.requires_grad_()
        grad = torch.autograd.grad(F.cross_entropy(model(x_adv), y, reduction="sum"), x_adv)[0]
        x_adv = x_adv.detach() + STEP * grad.sign()


def median(run):
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 784, 10),
    ).eval()
    x = torch.rand(32, 1, 28, 28)
    attack = PGD(threat=Threat(eps=STEPS * STEP), steps=STEPS, step_size=STEP, start="zero")
    print(f"{'margin of the logits':>21}{'plain loop':>12}{'buttress':>10}{'ratio':>8}")
    for scale in (1.0, 5000.0, 6000.0, 6500.0):
        model = Scaled(net, scale)
        with torch.no_grad():
            first, second = model(x).topk(2).values.unbind(1)
            y = model(x).argmax(1)
        theirs = median(partial(plain, model, x, y))
        ours = median(partial(attack.craft, model, x, y))
        print(f"{float((first - second).mean()):21.2f}{theirs:10.3f} s{ours:8.3f} s{theirs / ours:8.2f}")


if __name__ == "__main__":
    main()
