"""What a layer profile of one perturbation costs, in units of the two forward passes that it cannot do without.

Run on an idle machine: ``python benchmarks/layers.py``; with ``--quick`` for a smoke run whose figures mean little.
Plain passes and profiles alternate; the medians' ratio must be at most 1.15.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from buttress import attacks, layers, models

LIMIT = 1.15


def passes(model: nn.Module, batches: list[tuple[Tensor, Tensor]], noise: list[Tensor]) -> float:
    """Seconds for a clean and a noisy pass over all batches; the noise is drawn beforehand."""
    start = perf_counter()
    with torch.no_grad():
        for (x, _), noisy in zip(batches, noise, strict=True):
            model(x)
            model(noisy)
    return perf_counter() - start


def profile(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Seconds for a profile of all activations under Gaussian noise, the drawing of the noise included."""
    start = perf_counter()
    layers.sustainability(model, batches, {"gaussian": attacks.Gaussian(std=0.1)})
    return perf_counter() - start


def measure(name: str, shape: tuple[int, ...], batch: int, count: int, rounds: int) -> float:
    """Print one row of the table; return the ratio."""
    channels, _, side = shape
    extra = {"image_size": side} if name == "lsa-b" else {}
    model = models.create(name, classes=10, channels=channels, **extra).eval()
    random = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand(batch, *shape, generator=random), torch.zeros(batch, dtype=torch.int64)) for _ in range(count)
    ]
    noise = [torch.rand(batch, *shape, generator=random) for _ in range(count)]
    passes(model, batches, noise)
    profile(model, batches)
    plain, profiled = [], []
    for _ in range(rounds):
        plain.append(passes(model, batches, noise))
        profiled.append(profile(model, batches))
    ratio = median(profiled) / median(plain)
    print(
        f"{name:10} {count} x {batch:4} inputs  two passes {median(plain):8.3f} s  profile {median(profiled):8.3f} s",
        end="",
    )
    print(f"  ratio {ratio:.3f}  {'within' if ratio <= LIMIT else 'OVER'} {LIMIT}")
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few inputs and rounds: does it run at all")
    quick = parser.parse_args().quick
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    measure("lsa-b", (1, 28, 28), 64 if quick else 128, 2 if quick else 8, 3 if quick else 15)
    measure("resnet18", (3, 32, 32), 8 if quick else 64, 1 if quick else 2, 3 if quick else 9)


if __name__ == "__main__":
    main()
