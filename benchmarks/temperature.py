"""Temperature-PGD beside PGD at equal steps: 1/T chosen on validation data, attack rates compared on test data.

    python benchmarks/temperature.py --network runs/at --eps 0.1
    python benchmarks/temperature.py --network resnet18 --weights at.safetensors --data cifar10 --data-dir /data/cifar10
    python benchmarks/temperature.py --quick

The attack rate is the share of the inputs classified correctly that fall. Each attack gets the same inputs, steps,
restarts and starts; the difference on the test split comes with the 95 % interval of a paired bootstrap over inputs.
The grid is that of 1/T in {1/10, 1/2, 1, 2, 5, 10, 20, 50, 100}; of equal rates on the validation split the first
counts. ``--quick`` trains a small network adversarially on digits: its figures mean little.
"""

import argparse
from pathlib import Path

import torch

from buttress import data
from buttress.attacks import PGD, TPGD
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.jobs.fit_to_data import create_for
from buttress.jobs.settings import Network, Source, open_network
from buttress.threat import Threat
from buttress.training import fit

GRID = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
BATCH = 256


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="a run's folder, or an architecture's name with --weights and --data")
    parser.add_argument("--weights", type=Path, help="a safetensors file or state dict")
    parser.add_argument("--data", help="a data set; the run's own unless given")
    parser.add_argument("--data-dir", type=Path, help="where its files are")
    parser.add_argument("--inputs", type=int, default=1000, help="at most so many of each split")
    parser.add_argument("--norm", default="linf")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=10_000, help="of the bootstrap")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a small network, trained here, on digits: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.eps, chosen.steps, chosen.inputs = 0.15, 10, 150
    elif chosen.network is None:
        parser.error("give --network, or --quick")
    return chosen


def small(seed):
    """A network trained adversarially on digits, and the data."""
    dataset = data.load("digits", seed=seed)
    model = create_for(dataset, "cnn", {"width": 8}, True, seed)
    attack = PGD(threat=Threat(eps=0.15), steps=5)
    settings = {"epochs": 10, "batch_size": 32, "seed": seed, "validate_with": "none", "keep": "last"}
    fit(model, dataset, AdversarialTraining(attack), **settings)
    return model.eval(), dataset


def falls(attack, model, split, seed):
    """(N,) bool: which of the inputs that are classified correctly fall, and (N,) bool: which those are."""
    fallen, right = [], []
    for start in range(0, len(split), BATCH):
        x, y, ids = split.take(torch.arange(start, min(start + BATCH, len(split))))
        with torch.no_grad():
            right.append(model(x).argmax(1) == y)
        fallen.append(attack(model, x, y, seed=seed, ids=ids, search="first").success)
    return torch.cat(fallen), torch.cat(right)


def rate(fallen, right):
    return float(fallen[right].double().mean()) if right.any() else float("nan")


def difference(ours, theirs, samples, seed):
    """Mean difference of two outcomes of the same inputs, and the 95 % percentile interval of a paired bootstrap."""
    gap = ours.double() - theirs.double()
    draws = torch.Generator().manual_seed(seed)
    means = [gap[torch.randint(len(gap), (len(gap),), generator=draws)].mean() for _ in range(samples)]
    low, high = torch.stack(means).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return float(gap.mean()), low, high


def main():
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    if chosen.quick:
        model, dataset = small(chosen.seed)
        dataset = dataset.limited(chosen.inputs, chosen.seed)
    else:
        source = Source(data=chosen.data, data_dir=chosen.data_dir, limit=chosen.inputs)
        model, dataset, _ = open_network(chosen.network, Network(weights=chosen.weights), source, chosen.seed)
    threat = Threat(norm=chosen.norm, eps=chosen.eps, box=dataset.box)
    same = {"threat": threat, "steps": chosen.steps, "restarts": chosen.restarts}
    print(f"{dataset.name}, {chosen.norm} eps {chosen.eps:.4g}, {chosen.steps} steps, {chosen.restarts} restarts")
    print(f"\nvalidation, {len(dataset.val)} inputs\n{'1/T':>8}{'attack rate':>14}")
    rates = {}
    for cold in GRID:
        rates[cold] = rate(*falls(TPGD(temperature=1 / cold, **same), model, dataset.val, chosen.seed))
        print(f"{cold:8g}{rates[cold]:14.3f}")
    best = max(GRID, key=lambda cold: rates[cold])
    print(f"chosen: 1/T = {best:g}\n\ntest, {len(dataset.test)} inputs\n{'attack':>22}{'attack rate':>14}")
    ours, right = falls(TPGD(temperature=1 / best, **same), model, dataset.test, chosen.seed)
    print(f"{'T-PGD':>22}{rate(ours, right):14.3f}")
    if not right.any():
        print("no input is classified correctly: nothing to compare")
        return
    for loss in ("cross_entropy", "margin"):
        theirs, _ = falls(PGD(loss=loss, **same), model, dataset.test, chosen.seed)
        print(f"{'PGD, ' + loss:>22}{rate(theirs, right):14.3f}", end="")
        gap, low, high = difference(ours[right], theirs[right], chosen.samples, chosen.seed)
        print(f"   T-PGD finds {100 * gap:+.2f} points more ({100 * low:+.2f} to {100 * high:+.2f})")


if __name__ == "__main__":
    main()
