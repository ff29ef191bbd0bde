"""PGD-20 on a ResNet-18: inputs per second of buttress beside torchattacks and a plain loop, in one run.

    python benchmarks/attacks.py --quick
    python benchmarks/attacks.py --weights model.safetensors --threads 2

Three regimes: with an eps of 0 the inputs, which the model gets right by making its answers the labels, all stand; with
other labels for half of them, these fall at once; and with an eps at which half of them fall, most of those late. The
contenders take turns and the medians are told. Verdicts are compared input by input with a plain float32 loop from the
same random starts: with "full" that of its last point, with "first" whether any of its points beat the model. Then the
inputs that stand get a short float32 attack, from where they are.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from buttress import models
from buttress.attacks import BIM, PGD
from buttress.random import Random, derive
from buttress.threat import Threat


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a safetensors file or state dict; random weights unless given")
    parser.add_argument("--inputs", type=int, default=64, help="images of 3x32x32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=64, help="filters of the first stage")
    parser.add_argument("--precision", nargs="+", default=["fp32", "folded", "bf16", "twin", "auto"])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a narrow network, few steps, one round: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.inputs, chosen.steps, chosen.width, chosen.rounds = 16, 4, 8, 1
    return chosen


def plain_pgd(model, x, y, eps, steps):
    """The loop as everybody writes it, in float32; also says which inputs any of its points beat."""
    start = Threat(eps=eps).random_start(x, Random(derive(0, "attack"), torch.arange(len(x))))
    x_adv, fallen = start, torch.zeros(len(x), dtype=torch.bool)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        logits = model(x_adv)
        fallen |= logits.argmax(1) != y
        grad = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x_adv)[0]
        x_adv = x_adv.detach() + 2.5 * eps / steps * grad.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp(0, 1)
    return x_adv.detach(), fallen


def half_falls(model, x, y, steps):
    """An eps at which the plain loop leaves about half of the inputs, by bisection."""
    low, high = 0.0, 16 / 255
    for _ in range(12):
        eps = (low + high) / 2
        x_adv, fallen = plain_pgd(model, x, y, eps, steps)
        share = float((fallen | wrong(model, x_adv, y)).float().mean())
        low, high = (low, eps) if share > 0.5 else (eps, high)
    return (low + high) / 2


def wrong(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) != y


def contenders(model, x, y, eps, steps, precisions):
    """Name -> a function that gives the perturbed inputs."""

    def ours(**options):
        return lambda: PGD(threat=Threat(eps=eps), steps=steps)(model, x, y, **options).x_adv

    made = {"plain loop": lambda: plain_pgd(model, x, y, eps, steps)[0]}
    try:
        import torchattacks

        peer = torchattacks.PGD(model, eps=eps, alpha=2.5 * eps / steps, steps=steps)
        made["torchattacks"] = lambda: peer(x, y)
    except ImportError as error:
        print(f"torchattacks is left out: {error}; pip install --no-deps torchattacks")
    for search in ("full", "first"):
        for precision in precisions:
            made[f"{precision} {search}"] = ours(search=search, precision=precision)
    return made


def measure(made, rounds):
    """Median seconds and points of each contender; they take turns, after one turn to warm up."""
    seconds, points = {name: [] for name in made}, {}
    for turn in range(rounds + 1):
        for name, run in made.items():
            start = time.perf_counter()
            points[name] = run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}, points


def differences(points, model, x, y, eps, steps):
    """Verdicts that differ from the plain loop's, and inputs that stand and then fall to 10 more steps in float32."""
    last, fallen = plain_pgd(model, x, y, eps, steps)
    last = wrong(model, last, y)
    short = BIM(threat=Threat(eps=eps), steps=10)
    found = {}
    for name, x_adv in points.items():
        verdict = wrong(model, x_adv, y)
        plain = fallen | last if name.endswith("first") else last
        stand = (~verdict).nonzero().squeeze(1)
        project = Threat(eps=eps).projector(x[stand])
        later = project(short(model, x_adv[stand], y[stand]).x_adv)
        found[name] = int((verdict != plain).sum()), int(wrong(model, later, y[stand]).sum())
    return found


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
    half = half_falls(model, x, y, chosen.steps)
    answers, early = y, torch.where(torch.arange(len(y)) % 2 == 0, y, (y + 1) % 10)
    regimes = [("nothing falls (eps 0)", 0.0, answers), ("half of the inputs fall at once (eps 0)", 0.0, early)]
    regimes.append((f"half of the inputs fall, most of them late (eps {255 * half:.3f}/255)", half, answers))
    for regime, eps, y in regimes:
        made = contenders(model, x, y, eps, chosen.steps, chosen.precision)
        seconds, points = measure(made, chosen.rounds)
        differing = differences(points, model, x, y, eps, chosen.steps)
        against = "torchattacks" if "torchattacks" in seconds else "plain loop"
        head = f"{'inputs/s':>10}{'x ' + against:>16}{'x plain loop':>14}{'robust accuracy':>17}"
        print(f"\n{regime}\n{'':20}{head}{'verdicts differ':>17}{'fall later':>12}")
        for name, value in seconds.items():
            ratios = f"{seconds[against] / value:16.2f}{seconds['plain loop'] / value:14.2f}"
            robust = 100 * float((~wrong(model, points[name], y)).float().mean())
            others = f"{differing[name][0]:17d}{differing[name][1]:12d}"
            print(f"{name:20}{chosen.inputs / value:10.1f}{ratios}{robust:16.1f}%{others}", flush=True)
    draws, step = cost_of_draws(model, x, y, chosen.rounds)
    verdict = "within" if draws < 0.05 * step else "ABOVE"
    print(f"\ndraws of one start: {100 * draws / step:.2f}% of a gradient step ({verdict} the 5% allowed)")


if __name__ == "__main__":
    main()
