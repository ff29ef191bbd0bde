"""What a layer profile of one perturbation costs, in units of the two forward passes that it cannot do without.

Run on an idle machine: ``python benchmarks/layers.py``; with ``--quick`` for a smoke run whose figures mean little.
Plain passes and profiles alternate. A profile has a cost of its own, which does not grow with the data: it reads the
network's code, follows its graph, and checks with up to 32 inputs how layers hold theirs. So there are two figures,
from few inputs and more of them: what a further batch costs in units of its two passes, which must be at most 1.15, and
the fixed cost in passes of 32 inputs. Of little data the ratio is large for that reason, and printed too.

With the number of layers the cost must grow as that of the passes does: the ratio at 800 layers must be at most 1.5
times that at 200.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from buttress import attacks, layers, models
from buttress.layers.rows import CHECKED

LIMIT = 1.15
GROWTH = 1.5  # of the ratio, from the fewest layers to the most


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


def ratio(model: nn.Module, shape: tuple[int, ...], batch: int, count: int, rounds: int) -> tuple[float, float]:
    """Median seconds of the two passes over ``count`` batches, and of the profile in units of them."""
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
    return median(plain), median(profiled) / median(plain)


def measure(name: str, shape: tuple[int, ...], batch: int, counts: tuple[int, int], rounds: int) -> None:
    """Print two rows of the table for a network of usual depth, and what of the cost grows with the inputs."""
    channels, _, side = shape
    extra = {"image_size": side} if name == "lsa-b" else {}
    model = models.create(name, classes=10, channels=channels, **extra).eval()
    rows = []
    for count in counts:
        seconds, factor = ratio(model, shape, batch, count, rounds)
        rows.append((seconds, seconds * factor))
        print(
            f"{name:10} {count:2} x {batch:4} inputs  two passes {seconds:8.3f} s  profile {seconds * factor:8.3f} s"
            f"  ratio {factor:.3f}"
        )
    (plain, profiled), (plain_more, profiled_more) = rows
    growing = (profiled_more - profiled) / (plain_more - plain)
    one = plain_more / (2 * counts[1] * batch)  # seconds for an input to pass
    fixed = (profiled - growing * plain) / (CHECKED * one)
    print(
        f"{name:10} a further batch costs {growing:.3f} times its two passes"
        f"  {'within' if growing <= LIMIT else 'OVER'} {LIMIT};"
        f"  the profile as such {fixed:.1f} passes of {CHECKED} inputs"
    )


def deep(depth: int, width: int = 256) -> nn.Module:
    """So many layers of a perceptron, each with an activation."""
    torch.manual_seed(0)
    layer = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layer, nn.Linear(width, 10)).eval()


def growth(depths: tuple[int, ...], batch: int, rounds: int) -> None:
    """Print what a profile costs at each depth: the factor must not grow with it."""
    factors = []
    for depth in depths:
        seconds, factor = ratio(deep(depth), (256,), batch, 1, rounds)
        factors.append(factor)
        print(
            f"{depth:4} layers  {batch:4} inputs  two passes {seconds:8.3f} s  profile {seconds * factor:8.3f} s"
            f"  ratio {factor:.3f}"
        )
    grown = factors[-1] / factors[0]
    print(f"the ratio grows by {grown:.2f} from {depths[0]} to {depths[-1]} layers", end="  ")
    print(f"{'within' if grown <= GROWTH else 'OVER'} {GROWTH}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few inputs and rounds: does it run at all")
    quick = parser.parse_args().quick
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    measure("lsa-b", (1, 28, 28), 64 if quick else 128, (1, 3) if quick else (2, 8), 3 if quick else 15)
    measure("resnet18", (3, 32, 32), 8 if quick else 64, (1, 2), 3 if quick else 9)
    growth((25, 100) if quick else (200, 400, 800), 32 if quick else 256, 3)


if __name__ == "__main__":
    main()
