"""PGD-20 on a ResNet-18: inputs per second of buttress beside torchattacks and a plain loop, in one run.

    python benchmarks/attacks.py --quick
    python benchmarks/attacks.py --weights model.safetensors --threads 2

Two regimes: with an eps of 0 the inputs that the model gets right all stand, with the usual eps some fall. The
contenders take turns and the medians are told. The labels are the model's own answers, so the robust accuracy of a
random network says nothing of a trained one's; it is there to be compared between the contenders.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from buttress import models
from buttress.attacks import PGD
from buttress.random import Random
from buttress.threat import Threat


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a safetensors file or state dict; random weights unless given")
    parser.add_argument("--inputs", type=int, default=64, help="images of 3x32x32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=64, help="filters of the first stage")
    parser.add_argument("--eps", type=float, default=8 / 255, help="budget of the regime in which inputs fall")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a narrow network, few steps, one round: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.inputs, chosen.steps, chosen.width, chosen.rounds = 16, 4, 8, 1
    return chosen


def plain_pgd(model, x, y, eps, steps):
    """The loop as everybody writes it, in float32; gradients of the input only."""
    x_adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        grad = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)[0]
        x_adv = x_adv.detach() + 2.5 * eps / steps * grad.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp(0, 1)
    return x_adv.detach()


def contenders(model, x, y, eps, steps):
    """Name -> a function that gives the perturbed inputs."""

    def ours(**options):
        return lambda: PGD(threat=Threat(eps=eps), steps=steps)(model, x, y, **options).x_adv

    made = {"plain loop": lambda: plain_pgd(model, x, y, eps, steps)}
    try:
        import torchattacks

        peer = torchattacks.PGD(model, eps=eps, alpha=2.5 * eps / steps, steps=steps)
        made["torchattacks"] = lambda: peer(x, y)
    except ImportError as error:
        print(f"torchattacks is left out: {error}; pip install --no-deps torchattacks")
    for search in ("full", "first"):
        for precision in ("fp32", "bf16", "auto"):
            made[f"buttress {precision} {search}"] = ours(search=search, precision=precision)
    return made


def measure(made, model, y, rounds):
    """Median seconds and robust accuracy of each contender; they take turns, after one turn to warm up."""
    seconds, accuracy = {name: [] for name in made}, {}
    for turn in range(rounds + 1):
        for name, run in made.items():
            start = time.perf_counter()
            x_adv = run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            with torch.no_grad():
                accuracy[name] = float((model(x_adv).argmax(1) == y).float().mean())
    return {name: statistics.median(values) for name, values in seconds.items()}, accuracy


def median_seconds(run, rounds):
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def cost_of_draws(model, x, y, rounds):
    """Seconds of the draws of one random start, and of one gradient step."""

    def step():
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)

    random = Random(0, torch.arange(len(x)))
    return median_seconds(lambda: random.uniform(x.shape[1:]), 5 * rounds), median_seconds(step, rounds)


def main():
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    model = models.create("resnet18", width=chosen.width, seed=0)
    if chosen.weights:
        models.load_weights(model, chosen.weights)
    model.eval()
    x = torch.rand(chosen.inputs, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not chosen.weights:  # fresh weights answer one class for all: spread the answers
            model.linear.bias -= model(x).mean(0)
        y = model(x).argmax(1)
    print(f"PGD-{chosen.steps}, {chosen.inputs} images, {chosen.threads} threads, torch {torch.__version__}")
    for regime, eps in (("nothing falls (eps 0)", 0.0), (f"inputs fall (eps {chosen.eps:.4g})", chosen.eps)):
        made = contenders(model, x, y, eps, chosen.steps)
        seconds, accuracy = measure(made, model, y, chosen.rounds)
        base = seconds.get("torchattacks", seconds["plain loop"])
        against = "torchattacks" if "torchattacks" in seconds else "plain loop"
        print(f"\n{regime}\n{'':24}{'inputs/s':>10}{'x ' + against:>16}{'x plain loop':>14}{'robust accuracy':>17}")
        for name, value in seconds.items():
            ratios = f"{base / value:16.2f}{seconds['plain loop'] / value:14.2f}"
            print(f"{name:24}{chosen.inputs / value:10.1f}{ratios}{100 * accuracy[name]:16.1f}%")
    draws, step = cost_of_draws(model, x, y, chosen.rounds)
    verdict = "within" if draws < 0.05 * step else "ABOVE"
    print(f"\ndraws of one start: {100 * draws / step:.2f}% of a gradient step ({verdict} the 5% allowed)")


if __name__ == "__main__":
    main()
