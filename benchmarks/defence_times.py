"""What every training method takes in time: its steps beside those of standard training, and what it does before.

    python benchmarks/defence_times.py                # every registered defence for any network; minutes
    python benchmarks/defence_times.py --only at apart --steps 40
    python benchmarks/defence_times.py --quick        # tiny, to see that it runs

The networks, data, settings and lengths are those of every_defence.py. Each method trains for a few steps between two
short trainings by the standard method; a ratio is of the median step to the mean of the medians beside it. Times of
whole trainings are such ratios times the steps that each takes, as multiples of standard training; seconds of preparing
are counted apart, and once. Run it on an idle machine.
"""

import argparse
import contextlib
import itertools
import platform
import statistics
import time

import torch
from every_defence import EPOCHS, LEFT_OUT, OPTIONS, OWN_EPOCHS

from buttress import data, models, registry
from buttress.engine.threat_resolution import resolve_threats
from buttress.threat import Threat
from buttress.training import Optimiser, fit

LAYERS = {name: {"layers": words[1].strip("[]").split(", ")} for name, words in OPTIONS.items()}


class EnoughError(Exception):
    """So many steps have been timed."""


class Watch:
    """Notes when each step has ended, and ends the training after some."""

    def __init__(self, steps):
        self.steps, self.moments, self.total, self.done = steps, [], 0, 0.0

    def __call__(self, done, figures):
        now = time.perf_counter()
        if not self.moments:
            self.total = round(1 / done)
        if done > self.done:
            self.moments.append(now)
        else:  # the end of an epoch, which is no step's time
            self.moments[-1] = now
        self.done = done
        if len(self.moments) > self.steps:
            raise EnoughError

    @property
    def seconds(self):
        """Of the median step; the first warms up."""
        return statistics.median(b - a for a, b in itertools.pairwise(self.moments))


def trained(name, steps, dataset):
    """Seconds of a step and of what comes before the first, and the number of steps of a whole training."""
    defence = resolve_threats(registry.defence.get(name)(**LAYERS.get(name, {})), Threat(eps=0.2))
    model, watch = models.create("cnn", channels=1, classes=10, width=16, seed=0), Watch(steps)
    epochs = OWN_EPOCHS.get(name, EPOCHS)
    begun = time.perf_counter()
    settings = {"batch_size": 64, "optimiser": Optimiser(lr=0.002), "validate_with": "none", "keep": "last"}
    with contextlib.suppress(EnoughError):
        fit(model, dataset, defence, epochs=epochs, progress=watch, **settings)
    before = watch.moments[0] - begun - watch.seconds
    return watch.seconds, before, watch.total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in registry.defence.names() if name not in LEFT_OUT]
    parser.add_argument("--only", nargs="+", choices=usual, default=usual, metavar="NAME")
    parser.add_argument("--steps", type=int, default=20, help="timed of each training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two methods, few steps: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.only, chosen.steps = ["at", "apart"], 3
    torch.set_num_threads(chosen.threads)
    dataset = data.load("digits")
    print(f"digits, CNN of width 16, batches of 64, {chosen.threads} threads, torch {torch.__version__}, ", end="")
    print(f"{platform.machine()}\n\n| method | x a standard step | x standard training | seconds before |")
    print("| --- | ---: | ---: | ---: |")
    trained("standard", chosen.steps, dataset)
    first = trained("standard", chosen.steps, dataset)
    for name in chosen.only:
        seconds, before, steps = trained(name, chosen.steps, dataset)
        second = trained("standard", chosen.steps, dataset)
        ratio = seconds / ((first[0] + second[0]) / 2)
        prepared = f"{before:.1f}" if registry.defence.get(name)().preparation else "-"
        print(f"| {name} | {ratio:.1f} | {ratio * steps / second[2]:.1f} | {prepared} |", flush=True)
        first = second


if __name__ == "__main__":
    main()
