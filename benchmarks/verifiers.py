"""Seconds per input and share left unknown, of each verifier on one network, and each bound's mean margin.

    python benchmarks/verifiers.py DIR --inputs 50 --eps 0.05 0.1 --time-limit 10

DIR holds MNIST's four idx files, or a folder mnist with them. The network has two convolutions (16 and 32 channels,
4x4, stride 2) and a hidden layer of 100, trained on a part of the training images against PGD within ``--trained``,
once: it is kept in ``--network``. One thread; seconds are the processor's, while ``--time-limit`` is by the clock.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from buttress import certificates, data
from buttress.threat import Threat


def network():
    """The small network that verification papers use."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def split_of(split, count):
    """The first inputs of a split, as numbers from 0 to 1."""
    x = split.x[:count]
    return (x if x.is_floating_point() else x / 255).float(), split.y[:count]


def trained(x, y, eps, epochs):
    """Adversarially, with five steps of PGD."""
    torch.manual_seed(0)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    threat = Threat(eps=eps)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            clean, point = x[rows], (x[rows] + eps * (2 * torch.rand_like(x[rows]) - 1)).clamp(0, 1)
            for _ in range(5):
                point.requires_grad_()
                (grad,) = torch.autograd.grad(F.cross_entropy(model(point), y[rows]), point)
                point = threat.project(threat.ascend(point.detach(), grad, eps / 3), clean)
            loss = F.cross_entropy(model(point), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        print(f"epoch {epoch}: loss {float(loss.detach()):.3f}", flush=True)
    return model


def main():
    """Train or load the network, then time the verifiers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", type=Path, default=Path("verifiers-network.pt"))
    parser.add_argument("--trained", type=float, default=0.1)
    parser.add_argument("--examples", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--eps", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--methods", nargs="+", default=["crown", "alpha-crown", "branch-and-bound", "exact"])
    parser.add_argument("--time-limit", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, images = network(), data.load("mnist", data_dir=options.data)
    if not options.network.exists():
        x, y = split_of(images.train, options.examples)
        kept = trained(x, y, options.trained, options.epochs)
        torch.save(kept.state_dict(), options.network)
    model.load_state_dict(torch.load(options.network))
    x, y = split_of(images.test, options.inputs)
    print(f"clean accuracy {(model(x).argmax(1) == y).float().mean():.2f} of {len(x)}")
    print("| eps | method | verified | falsified | unknown | mean margin | CPU seconds per input |")
    for eps in options.eps:
        for method in options.methods:
            limited = {"time_limit": options.time_limit} if method in ("branch-and-bound", "exact") else {}
            started = time.process_time()
            found = certificates.certify(model, x, y, threat=Threat(eps=eps), method=method, **limited)
            counts = (int(which.sum()) for which in (found.verified, found.falsified, found.unknown))
            seconds = (time.process_time() - started) / len(x)
            cells = [str(eps), method, *map(str, counts), f"{found.margin.mean():.3f}", f"{seconds:.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
