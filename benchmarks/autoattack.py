"""AutoAttack (standard) of buttress beside the reference implementation (pyautoattack), on one network in one run.

    python benchmarks/autoattack.py --quick
    python benchmarks/autoattack.py --network RUN --data cifar10 --data-dir DIR --inputs 1000 --threads 2

Told for each: robust accuracy, seconds, and for each part the inputs it was given and the passes it spent on one of
them. "twin" is the reference's rival on machines with bf16 units, "fp32" and "folded" are float32 throughout.
Verdicts are compared input by input. The reference runs first; no two run at a time.
"""

import argparse
import logging
import time
import warnings

import torch
from torch import nn

from buttress import data, load, models
from buttress.attacks.composed.autoattack import AutoAttack
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.threat import Threat
from buttress.training import fit

PEERS_NORM = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="folder of a training run; a small network is trained unless given")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--inputs", type=int, default=1000, help="of the test split, classes in proportion")
    parser.add_argument("--norm", default="linf", choices=list(PEERS_NORM))
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--precision", nargs="+", default=["fp32", "folded", "twin"], help="contenders of buttress")
    parser.add_argument("--batch-size", type=int, default=250, help="of both; the reference's default")
    parser.add_argument("--group", type=int, default=1000, help="inputs that buttress attacks together")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--without-peer", action="store_true", help="leave the reference out")
    parser.add_argument("--quick", action="store_true", help="a handful of digits: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.inputs, chosen.eps = 24, 0.1
    return chosen


def subject(chosen):
    """The network, the inputs it gets right or wrong as they come, and their classes."""
    source = data.load(chosen.data, data_dir=chosen.data_dir)
    if chosen.network:
        model = load(chosen.network)
    else:
        model = models.create("resnet18", classes=len(source.classes), channels=source.shape[0], width=8)
        defence = AdversarialTraining(PGD(threat=Threat(norm=chosen.norm, eps=chosen.eps), steps=5))
        fit(model, source, defence, epochs=1 if chosen.quick else 5, validate_with="none", keep="last")
    split = source.test.stratified(min(chosen.inputs, len(source.test)), 0)
    x, y, _ = split.take(torch.arange(len(split)))
    return model.eval(), x, y


class Counted(nn.Module):
    """Counts the inputs that pass forwards and backwards, by the part that is running."""

    def __init__(self, model):
        super().__init__()
        self.model, self.part, self.passes = model, "checks", {}

    def forward(self, x):
        spent = self.passes.setdefault(self.part, [0, 0])
        spent[0] += len(x)
        output = self.model(x)
        if output.requires_grad:

            def count(grad):
                spent[1] += len(x)

            output.register_hook(count)
        return output


class Listener(logging.Handler):
    """Hears from the reference which part runs, and what is left after it."""

    def __init__(self, counted):
        super().__init__(logging.DEBUG)
        self.counted, self.after, self.entered, self.left, self.seconds = counted, {}, {}, None, {}
        self.start = time.perf_counter()

    def emit(self, record):
        text = record.getMessage()
        if text.startswith("running "):
            self.counted.part, self.start = text.split()[1], time.perf_counter()
            self.entered[self.counted.part] = self.left
        elif text.startswith(("initial accuracy: ", "robust accuracy after ")):
            share = float(text.split(": ")[1].split("%")[0]) / 100
            self.left = share
            if text.startswith("robust"):
                self.seconds[self.counted.part] = time.perf_counter() - self.start
                self.counted.part = "checks"


def reference(model, x, y, chosen):
    """Seconds, (N,) bool which inputs stand, and what each part did."""
    from pyautoattack import AutoAttack as Peer

    counted = Counted(model)
    listener, logger = Listener(counted), logging.getLogger("auto-attack")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(listener)
    peer = Peer(counted, norm=PEERS_NORM[chosen.norm], eps=chosen.eps, version="standard", seed=0)
    classes = int(model(x[:1]).shape[1])
    peer.apgd_targeted.n_target_classes = peer.fab.n_target_classes = min(9, classes - 1)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = peer.run_standard_evaluation(x, y, batch_size=chosen.batch_size)
    seconds = time.perf_counter() - start
    logger.removeHandler(listener)
    x_adv = found[0] if isinstance(found, tuple) else found
    parts = {}
    for name, share in listener.entered.items():
        entered = round(share * len(x))
        spent = counted.passes[name]
        parts[name] = (entered, spent[0] / entered, spent[1] / entered, listener.seconds[name])
    return seconds, stands(model, x_adv, y), parts


def stands(model, x_adv, y):
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x_adv.split(250)]) == y


def ours(model, x, y, chosen, precision):
    """As `reference`; the robust accuracy is the float32 verdict of the returned points."""
    attack = AutoAttack(threat=Threat(norm=chosen.norm, eps=chosen.eps))
    start, points, stages, used = time.perf_counter(), [], {}, set()
    for begin in range(0, len(x), chosen.group):
        rows = slice(begin, begin + chosen.group)
        ids = torch.arange(len(x))[rows]
        settings = {"search": "first", "precision": precision, "batch_size": chosen.batch_size, "ids": ids}
        result = attack(model, x[rows], y[rows], **settings)
        points.append(result.x_adv)
        used.add(result.precision)
        for stage in result.stages:
            stages[stage.name] = stages[stage.name] + stage if stage.name in stages else stage
    seconds = time.perf_counter() - start
    parts = {
        s.name: (s.entered, s.forwards / max(s.entered, 1), s.backwards / max(s.entered, 1), None)
        for s in stages.values()
    }
    return seconds, stands(model, torch.cat(points), y), parts, used


def told(name, seconds, standing, parts):
    print(f"\n{name}: {seconds:.1f} s, robust accuracy {100 * float(standing.float().mean()):.2f} %", flush=True)
    for part, (entered, forwards, backwards, spent) in parts.items():
        clock = "" if spent is None else f", {spent:.1f} s"
        print(f"  {part:10s} {entered:5d} inputs, {forwards:8.1f} forwards, {backwards:7.1f} backwards each{clock}")


def main():
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    model, x, y = subject(chosen)
    clean = float(stands(model, x, y).float().mean())
    place = f"{chosen.threads} threads, torch {torch.__version__}"
    print(
        f"{len(x)} inputs, clean accuracy {100 * clean:.2f} %, {chosen.norm} eps {chosen.eps:.4g}, {place}", flush=True
    )
    peer = None
    if not chosen.without_peer:
        try:
            peer = reference(model, x, y, chosen)
            told("reference", *peer)
        except ImportError:
            print("the reference is left out: pip install pyautoattack")
    for precision in chosen.precision:
        seconds, standing, parts, used = ours(model, x, y, chosen, precision)
        told(f"buttress {precision} ({', '.join(sorted(used))})", seconds, standing, parts)
        if peer is not None:
            only_ours, only_peer = int((peer[1] & ~standing).sum()), int((~peer[1] & standing).sum())
            gap = 100 * float(standing.float().mean() - peer[1].float().mean())
            print(f"  {peer[0] / seconds:.2f} times as fast as the reference; robust accuracy {gap:+.2f} points")
            print(f"  beaten by buttress alone: {only_ours}, by the reference alone: {only_peer}", flush=True)


if __name__ == "__main__":
    main()
