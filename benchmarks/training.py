"""PGD-10 adversarial training: images per second of the trainer against a plain float32 loop, and what both arrive at.

    python benchmarks/training.py                                                  # speed alone, on random images
    python benchmarks/training.py --data cifar10 --data-dir DIR --limit 4000 --epochs 3   # and robust accuracy
    python benchmarks/training.py --device cuda --batch 128 --data cifar10 --data-dir DIR --limit 60000 --epochs 30
    python benchmarks/training.py --quick                                          # tiny, to see that it runs

The plain loop is what scripts of the field do: each PGD step one forward and one backward pass in float32, eval mode
while crafting, then one step of SGD. On a machine with bf16 units the trainer is to be at least 2.2 times as fast with
its twin (crafting on a copy in bf16 with BatchNorm folded) and bf16 passes: where one is BELOW that, the exit status is
1. The contenders take turns in one process; the ratio is the median over the turns. Robust accuracy is under PGD-20 on
the same test inputs, after the same epochs from the same weights, with the seconds that they took; the differences are
paired by seed.
"""

import argparse
import functools
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from buttress import data, models
from buttress.attacks.gradient.pgd import PGD
from buttress.claims.seed_statistics import paired_difference
from buttress.data.arrays import from_arrays
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training.batches import Batches

ALLOWED = 2.2
EPS, STEP = 8 / 255, 2 / 255
FAST = {"twin and bf16": ("twin", "bf16-mixed"), "twin": ("twin", "32-true"), "fp32": ("fp32", "32-true")}


def plain(model, dataset, epochs, batch_size, seed, device="cpu"):
    """The field's loop; the batches are ours, so that both see the same images."""
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(epochs):
        for batch in Batches(dataset, batch_size, seed, torch.device(device)).epoch(epoch):
            x, y = batch.x, batch.y
            model.eval()
            x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
            for _ in range(10):
                x_adv = x_adv.detach().requires_grad_()
                (grad,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
                x_adv = (x_adv + STEP * grad.sign()).detach()
                x_adv = torch.minimum(torch.maximum(x_adv, x - EPS), x + EPS).clamp(0, 1)
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(x_adv), y).backward()
            optimizer.step()
    model.eval()


def ours(model, dataset, epochs, batch_size, seed, way, device="cpu"):
    """The trainer with the same method."""
    search, precision = FAST[way]
    defence = AdversarialTraining(PGD(threat=Threat(eps=EPS), steps=10, step_size=STEP))
    optimiser = Optimiser(name="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4)
    settings = {"search_precision": search, "precision": precision, "validate_with": "none", "keep": "last"}
    # One validation input: the loop has none at all.
    fit(
        model,
        dataset,
        defence,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        optimiser=optimiser,
        validate_on=1,
        accelerator=device,
        **settings,
    )


def random_images(count):
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (count + 20, 3, 32, 32), dtype=np.uint8)
    y = np.arange(count + 20) % 10
    names = [str(c) for c in range(10)]
    train, test = (x[: count + 10], y[: count + 10]), (x[-10:], y[-10:])
    return from_arrays("noise", train, test, classes=names, box=(0.0, 1.0), provenance="drawn here.", val=10)


def loaded(chosen):
    kept = {"data_dir": Path(chosen.data_dir)} if chosen.data_dir else {}
    return data.load(chosen.data, **kept).limited(chosen.limit, 0)


def make(chosen, channels, seed=0):
    return models.create("resnet18", width=chosen.width, channels=channels, seed=seed)


def seconds_of(train, device):
    """How long it takes, the work that a device has queued included."""
    start = time.perf_counter()
    train()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def speed(chosen):
    """Seconds of one pass over so many batches, in turns; whether the trainer is as fast as it is to be."""
    dataset = random_images(chosen.batch * chosen.batches)
    ways = {"plain loop": plain, **{way: functools.partial(ours, way=way) for way in FAST}}
    seconds = {way: [] for way in ways}
    for turn in range(chosen.rounds + 1):
        for way, train in ways.items():
            model = make(chosen, 3)
            settings = (model, dataset, 1, chosen.batch, turn)
            taken = seconds_of(functools.partial(train, *settings, device=chosen.device), chosen.device)
            if turn:  # the first warms up
                seconds[way].append(taken)
    count = chosen.batch * chosen.batches
    print(f"\n{'':15}{'images / s':>12}{'x the plain loop':>18}")
    ratios = {}
    for way, found in seconds.items():
        ratio = ratios[way] = statistics.median(a / b for a, b in zip(seconds["plain loop"], found, strict=True))
        judged = f"  {'reaches' if ratio >= ALLOWED else 'BELOW'} {ALLOWED}" if way == "twin and bf16" else ""
        print(f"{way:15}{count / statistics.median(found):12.1f}{ratio:18.2f}{judged}")
    return ratios["twin and bf16"] >= ALLOWED


def has_bf16_units():
    """Whether the CPU multiplies in bf16 itself, as far as this platform tells."""
    told = Path("/proc/cpuinfo")
    return told.is_file() and any(flag in told.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def robustness(chosen):
    """Robust accuracy after the same epochs, by seed."""
    dataset = loaded(chosen)
    x, y, ids = (
        part.to(chosen.device) for part in dataset.test.take(torch.arange(min(chosen.test, len(dataset.test))))
    )
    print(f"\n{len(dataset.train)} images of {chosen.data}, {chosen.epochs} epochs, {len(y)} test inputs")
    differences = []
    for seed in range(chosen.seeds):
        robust = []
        for way in ("plain loop", "twin and bf16"):
            model = make(chosen, dataset.channels, seed)
            torch.manual_seed(seed)
            train = plain if way == "plain loop" else functools.partial(ours, way=way)
            settings = (model, dataset, chosen.epochs, chosen.batch, seed)
            taken = seconds_of(functools.partial(train, *settings, device=chosen.device), chosen.device)
            model.to(x.device)
            with torch.no_grad():
                clean = (torch.cat([model(part) for part in x.split(100)]).argmax(1) == y).float().mean()
            attacked = PGD(threat=Threat(eps=EPS), steps=20)(model, x, y, ids=ids, search="first")
            robust.append(100 - 100 * float(attacked.success.float().mean()))
            print(f"seed {seed}  {way:15} clean {clean:6.1%}  PGD-20 {robust[-1]:5.1f}%  {taken:8.0f} s", flush=True)
        differences.append(robust[1] - robust[0])
    told = paired_difference(differences)
    spread = "" if told["low"] is None else f" ({told['low']:+.1f} to {told['high']:+.1f})"
    print(f"twin and bf16 less the plain loop, paired by seed: {told['mean']:+.1f} points{spread}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64, help="filters of the first stage of the ResNet-18")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=3, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns, after one to warm up")
    parser.add_argument("--data", help="also train on this data set and attack the outcome")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int, default=4000, help="training images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--test", type=int, default=500, help="test inputs")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.width, chosen.batch, chosen.batches, chosen.rounds = 4, 8, 1, 1
    torch.set_num_threads(chosen.threads)
    run = f"batches of {chosen.batch}, {chosen.threads} threads, torch {torch.__version__}"
    print(f"ResNet-18 of width {chosen.width}, {run}")
    reached = speed(chosen)
    if chosen.data:
        robustness(chosen)
    return 0 if reached or chosen.quick or chosen.device != "cpu" or not has_bf16_units() else 1


if __name__ == "__main__":
    sys.exit(main())
