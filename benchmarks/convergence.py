"""Does a network that sees its own gradient train faster: epochs, gradient evaluations and seconds to robustness.

    python benchmarks/convergence.py                          # digits, width 16, eps 0.2, PGD-7 training, 30 epochs
    python benchmarks/convergence.py --data fashion-mini --limit 2000 --seeds 3
    python benchmarks/convergence.py --quick                  # tiny, to see that it runs

Goal: the first epoch in which robust accuracy on the validation split is 95 % of what plain adversarial training ends
with (mean of its last three epochs). It is the worst case of APGD, targeted APGD and Square, each input by the worst.

A gradient evaluation is one backward pass over the whole network for one input: crafting takes one a step, training
one, and a network that sees its own gradient one more within each of these. Seconds are those of the process, from the
start of the training to the end of that epoch, validation left out; on a busy machine they say little.

The abstract of Self-Gradient Networks (arXiv 2011.09364) speaks of convergence at least ten times faster; in case that
meant less than it says both readings are judged: plain / contender of at least 10 ("10 times"), and a contender that
needs at least 10 % less ("10 %"). The network is our reconstruction, so no verdict here is about the authors' own.
"""

import argparse
import math
import statistics
import time

import torch

from buttress import data
from buttress.attacks import PGD, AutoAttack
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.engine.attack import Attack
from buttress.jobs.fit_to_data import create_for
from buttress.threat import Threat
from buttress.training import Optimiser, Schedule, fit

SHARE = 0.95
LAST = 3  # epochs whose mean is where plain training ends
OWN = 2  # gradient evaluations where a plain network needs one
CONTENDERS = {
    "plain": ("cnn", {}, 1),
    "copied input": ("self-gradient", {"gradient": "none"}, 1),
    "input": ("self-gradient", {}, OWN),
    "input softplus": ("self-gradient", {"activation": "softplus"}, OWN),
    "input sign": ("self-gradient", {"normalise": "sign"}, OWN),
    "feature": ("self-gradient", {"variant": "feature"}, OWN),
    "residual": ("self-gradient", {"variant": "residual"}, OWN),
}
MEASURES = ("epochs", "gradients", "seconds")
READINGS = {"10 times": 10.0, "10 %": 1 / 0.9}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a data set of small images")
    parser.add_argument("--limit", type=int, help="at most so many inputs")
    parser.add_argument("--eps", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=7, help="of PGD in training")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.002, help="learning rate of Adam")
    parser.add_argument("--schedule", default="constant", help="of the learning rate; constant lets epochs be compared")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=200, help="validation inputs")
    parser.add_argument("--queries", type=int, default=500, help="of Square in validation")
    parser.add_argument("--rows", help="contenders, with commas; plain is always there")
    parser.add_argument("--quick", action="store_true", help="two epochs of few images: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.epochs, chosen.limit, chosen.width, chosen.inputs, chosen.queries = 2, 300, 4, 20, 10
    chosen.rows = list(CONTENDERS) if chosen.rows is None else ["plain", *chosen.rows.split(",")]
    unknown = [row for row in chosen.rows if row not in CONTENDERS]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; known: {', '.join(CONTENDERS)}")
    chosen.rows = list(dict.fromkeys(chosen.rows))
    return chosen


class Timed(Attack):
    """An attack whose time is taken, so that validation can be left out of the time of training."""

    def __init__(self, attack):
        self.attack, self.threat, self.ends, self.spent = attack, attack.threat, [], 0.0

    def perturb(self, oracle, x, y, random):
        return self.attack.perturb(oracle, x, y, random)

    def __call__(self, *args, **kwargs):
        start = time.process_time()
        self.ends.append(start - self.spent)  # as if no validation had been before
        found = self.attack(*args, **kwargs)
        self.spent += time.process_time() - start
        return found


def trained(name, dataset, chosen, seed):
    """Robust accuracy after each epoch, and seconds and gradient evaluations until then."""
    architecture, options, gradients = CONTENDERS[name]
    model = create_for(dataset, architecture, {"width": chosen.width, **options}, True, seed)
    threat = Threat(eps=chosen.eps, box=dataset.box)
    defence = AdversarialTraining(PGD(threat=threat, steps=chosen.steps))
    parts = ("apgd-ce", "apgd-t", "square")
    judge = Timed(AutoAttack(threat=threat, parts=parts, steps=20, targets=3, queries=chosen.queries))
    start = time.process_time()
    found = fit(
        model,
        dataset,
        defence,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        optimiser=Optimiser(lr=chosen.rate),
        schedule=Schedule(name=chosen.schedule),
        seed=seed,
        keep="last",
        validate_with=judge,
        validate_on=chosen.inputs,
    )
    calls = len(judge.ends) // chosen.epochs  # batches of a validation
    seconds = [end - start for end in judge.ends[::calls]]
    each = (chosen.steps + 1) * gradients * len(dataset.train)
    robust = [row["robust"] for row in found.history]
    return robust, [each * (epoch + 1) for epoch in range(chosen.epochs)], seconds


def reached(run, goal):
    """Epochs, gradient evaluations and seconds until the goal; infinite where it was not reached."""
    robust, gradients, seconds = run
    for epoch, value in enumerate(robust):
        if value >= goal:
            return epoch + 1, gradients[epoch], seconds[epoch]
    return math.inf, math.inf, math.inf


def told(ratio, least):
    return "–" if math.isnan(ratio) else "holds" if ratio >= least else "does not hold"


def main():
    chosen = arguments()
    torch.set_num_threads(1)
    ratios = {name: {measure: [] for measure in MEASURES} for name in chosen.rows}
    for seed in range(chosen.seeds):
        dataset = data.load(chosen.data, seed=seed)
        dataset = dataset if chosen.limit is None else dataset.limited(chosen.limit, seed)
        print(f"{dataset.name}, seed {seed}: {len(dataset.train)} inputs, eps {chosen.eps:g}, {chosen.epochs} epochs")
        if seed == 0:  # what is done once in a process is none's time
            trained("plain", dataset.limited(64, 0), argparse.Namespace(**{**vars(chosen), "epochs": 1}), 0)
        goal, plain = 0.0, (math.nan,) * 3
        print(f"{'':>16}{'final':>8}{'best':>8}{'epochs':>8}{'gradients':>12}{'seconds':>9}   robust accuracy by epoch")
        for name in chosen.rows:
            run = trained(name, dataset, chosen, seed)
            final = statistics.mean(run[0][-LAST:])
            if name == "plain":
                goal = SHARE * final
            needed = reached(run, goal)
            plain = needed if name == "plain" else plain
            for measure, own, theirs in zip(MEASURES, needed, plain, strict=True):
                ratios[name][measure].append(theirs / own if math.isfinite(theirs) else math.nan)
            curve = " ".join(f"{100 * value:.0f}" for value in run[0])
            line = f"{name:>16}{final:8.3f}{max(run[0]):8.3f}{needed[0]:8g}{needed[1]:12.4g}{needed[2]:9.1f}"
            print(f"{line}   {curve}", flush=True)
        print(f"goal: {goal:.3f}\n")
    print(f"plain / contender, mean over {chosen.seeds} seeds; 0 where a contender never got there")
    for name in chosen.rows[1:]:
        for measure in MEASURES:
            ratio = statistics.mean(ratios[name][measure])
            verdicts = ", ".join(f'"{reading}" {told(ratio, least)}' for reading, least in READINGS.items())
            print(f"{name:>16}{measure:>12}{ratio:8.2f}   {verdicts}")


if __name__ == "__main__":
    main()
