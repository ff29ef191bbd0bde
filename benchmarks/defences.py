"""What layer regularisation costs: a training step of AT-LR over one of its base; and each base over standard training.

    python benchmarks/defences.py            # the table
    python benchmarks/defences.py --quick    # tiny, to see that it runs

AT-LR is to cost at most 1.35 times its base for PGD-10 adversarial training (it adds a clean pass) and 1.10 times for
TRADES (which makes a clean pass anyway). A step is objective, backward pass and update, as the trainer makes them. Base
and regularised form take turns, and so does what the clock does to both; the ratio is the median over the turns of the
ratio within a turn.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import torch

from buttress import models
from buttress.attacks.gradient.pgd import PGD
from buttress.defences import Batch, Defence, StepContext
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.fgsm_training import Fast
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.layers.capture import layer_names
from buttress.random import Random
from buttress.threat import Threat

ALLOWED = {"AT, PGD-10": 1.35, "TRADES": 1.10}


@dataclass
class Contender:
    """A defence with a model and an optimiser of its own; all begin with the same weights."""

    model: torch.nn.Module
    defence: Defence
    batch: Batch
    steps: int = 0

    def __post_init__(self):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.seconds = []

    def step(self):
        """One step of training, timed."""
        start = time.perf_counter()
        self.model.train()
        context = StepContext(self.model, self.batch, index=self.steps, epoch=1.0)
        self.optimizer.zero_grad()
        self.defence.loss(self.model, self.batch, context).value.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - start)
        self.steps += 1


def networks(quick):
    """Name -> a maker of the network, and the shape of its inputs."""
    width, narrow = (4, 4) if quick else (16, 16)
    cnn = {"image_size": 28, "width": width}
    return {
        "cnn, 1x28x28": (lambda: models.create("cnn", **cnn, seed=0), (1, 28, 28)),
        f"resnet18 of width {narrow}, 3x32x32": (
            lambda: models.create("resnet18", width=narrow, seed=0),
            (3, 32, 32),
        ),
    }


def bases(steps):
    threat = Threat(eps=8 / 255)
    return {
        "standard": Standard(),
        "FGSM-RS": Fast(threat),
        f"AT, PGD-{steps}": AdversarialTraining(PGD(threat=threat, steps=steps)),
        "TRADES": TRADES(threat, steps=steps),
    }


def measure(make, batch, chosen):
    """Rows (base, its seconds, the regularised form's, their ratio, base over standard training)."""
    names = layer_names(make(), batch.x[:1])
    layers = names if chosen.layers == 0 else names[:: max(1, len(names) // chosen.layers)][: chosen.layers]
    pairs = {}
    for name, base in bases(chosen.steps).items():
        regularised = None if name == "standard" else LayerRegularised(base, layers=layers, gamma=0.3)
        pairs[name] = [Contender(make(), d, batch) for d in (base, regularised) if d is not None]
    for _ in range(chosen.rounds + 1):
        for pair in pairs.values():
            for contender in pair:
                contender.step()
    unit = statistics.median(pairs["standard"][0].seconds[1:])
    rows = []
    for name, pair in pairs.items():
        seconds = [statistics.median(c.seconds[1:]) for c in pair]
        turns = zip(*(c.seconds[1:] for c in pair), strict=True) if len(pair) == 2 else ()
        ratio = statistics.median(b / a for a, b in turns) if len(pair) == 2 else None
        rows.append((name, seconds, ratio, seconds[0] / unit))
    return layers, rows


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, help="inputs of a step")
    parser.add_argument("--steps", type=int, default=10, help="of the attacks")
    parser.add_argument("--layers", type=int, default=2, help="layers regularised, spread over the network; 0 for all")
    parser.add_argument("--rounds", type=int, default=11, help="turns of each contender, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="tiny networks, one round: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.batch, chosen.rounds = 8, 1
    return chosen


def main():
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    print(f"batch {chosen.batch}, {chosen.rounds} turns, {chosen.threads} threads, torch {torch.__version__}")
    for network, (make, shape) in networks(chosen.quick).items():
        ids = torch.arange(chosen.batch)
        batch = Batch(Random(0, ids).uniform(shape), ids % 10, ids)
        layers, rows = measure(make, batch, chosen)
        print(f"\n{network}; layers {', '.join(layers)}")
        print(f"{'':14}{'ms a step':>12}{'x standard':>12}{'with LR, ms':>13}{'LR / base':>11}")
        for name, seconds, ratio, cost in rows:
            line = f"{name:14}{1e3 * seconds[0]:12.1f}{cost:12.2f}"
            if ratio is not None:
                line += f"{1e3 * seconds[1]:13.1f}{ratio:11.3f}"
            if ratio is not None and name in ALLOWED:
                line += f"  {'within' if ratio <= ALLOWED[name] else 'ABOVE'} {ALLOWED[name]:.2f}"
            print(line)


if __name__ == "__main__":
    main()
