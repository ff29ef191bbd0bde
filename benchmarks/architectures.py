"""What an architecture costs beside the plain network that it is matched with: seconds, passes and parameters.

    python benchmarks/architectures.py                                  # the robust architectures, each and its match
    python benchmarks/architectures.py --names tisode,vit --match tisode=odenet-cnn,vit=resnet18
    python benchmarks/architectures.py --quick                          # tiny, to see that it runs

Seconds of a forward pass (eval mode, no gradients) are told per image, those of a training step (forward with the
network's own auxiliary term, backward, a step of SGD) per batch, both in milliseconds. A network and its match take
turns in one process, on the same images; all figures are medians over the turns, of the ratios too. Calls count how
often modules without parts run in one forward pass, so that a solver's steps and second passes show.
"""

import argparse
import inspect
import platform
import statistics
import sys
import time

import torch
import torch.nn.functional as F

from buttress import models, registry

# Each with the plain network that it is published against, or that is left of it without what is its own: a name, with
# options where these make the difference. What is timed may have an option, too, behind its name.
MATCHED = {
    "odenet": ("odenet-cnn", {}),
    "tisode": ("odenet-cnn", {}),
    "odenet-cnn": ("cnn", {}),
    "cifs-cnn": ("cifs-cnn", {"selection": "none"}),
    "cifs-resnet18": ("resnet18", {}),
    "cas-resnet18": ("resnet18", {}),
    "cifs-wrn": ("wrn", {}),
    "snode": ("mlp", {"hidden": [1175, 1175]}),  # of as many parameters at 28x28
    "zerosnet": ("zerosnet", {"discretisation": "resnet"}),
    "zerosnet discretisation=tra": ("zerosnet", {"discretisation": "resnet"}),  # a k is trained in each block
    "zerosnet discretisation=lm": ("zerosnet", {"discretisation": "resnet"}),  # likewise
    "lt-node": ("odenet-cnn", {}),
    "alt-node": ("odenet-cnn", {}),
    "self-gradient": ("self-gradient", {"gradient": "none"}),
    "vit": ("resnet18", {"width": 16}),
    "covit": ("vit", {}),
    "vit-hybrid": ("vit", {}),
}
# Sizes at which a run takes minutes; a network that is not named here has its defaults.
OPTIONS = {
    "snode": {"pool": 2, "resolution": 20},
    "cifs-wrn": {"depth": 16, "width": 2},
    "wrn": {"depth": 16, "width": 2},
}
QUICK = {"width": 4, "depth": 1, "heads": 2, "blocks": 2, "extractor": "small", "step": 0.5, "resolution": 3}
QUICK_OPTIONS = {"cifs-wrn": {"depth": 10, "width": 1}, "wrn": {"depth": 10, "width": 1}}


def make(name, options, chosen):
    """A network for images of the size that was asked for."""
    known = inspect.signature(registry.model.get(name)).parameters
    given = {"channels": chosen.channels, "image_size": chosen.size, "classes": 10}
    given["features"] = chosen.channels * chosen.size**2
    own = QUICK_OPTIONS.get(name, {}) if chosen.quick else OPTIONS.get(name, {})
    given |= (QUICK if chosen.quick else {}) | own | options
    return models.create(name, seed=0, **{key: value for key, value in given.items() if key in known})


def calls(model, x):
    """How often modules without parts run in one forward pass."""
    count = {"calls": 0}

    def note(module, args, output):
        count["calls"] += 1

    layers = [module for module in model.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return count["calls"]


def forward(model, x):
    """Seconds of a forward pass."""
    model.eval()
    start = time.perf_counter()
    with torch.no_grad():
        model(x)
    return time.perf_counter() - start


def step(model, optimizer, x, y):
    """Seconds of a training step."""
    model.train()
    start = time.perf_counter()
    optimizer.zero_grad()
    if hasattr(model, "forward_with_auxiliary"):
        logits, auxiliary = model.forward_with_auxiliary(x, y)
        loss = F.cross_entropy(logits, y) + auxiliary
    else:
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return time.perf_counter() - start


def measure(name, match, chosen):
    """Medians of a network and its match, which take turns; the ratios of the first to the second; what they are."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(chosen.batch, chosen.channels, chosen.size, chosen.size, generator=random)
    y = torch.randint(10, (chosen.batch,), generator=random)
    name, _, option = name.partition(" ")
    own = dict([option.split("=", 1)]) if option else {}
    nets = [make(name, own, chosen), make(*match, chosen)]
    optimizers = [torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9) for net in nets]
    found = [{"forward": [], "step": []} for _ in nets]
    for turn in range(chosen.rounds + 1):
        for net, optimizer, kept in zip(nets, optimizers, found, strict=True):
            torch.manual_seed(turn)
            seconds = {"forward": forward(net, x), "step": step(net, optimizer, x, y)}
            if turn:  # the first warms up
                for kind, value in seconds.items():
                    kept[kind].append(value)
    ratios = {k: statistics.median(a / b for a, b in zip(found[0][k], found[1][k], strict=True)) for k in found[0]}
    medians = [{k: statistics.median(v) for k, v in kept.items()} for kept in found]
    facts = [(sum(p.numel() for p in net.parameters()), calls(net, x[:1])) for net in nets]
    return medians, ratios, facts


def show(name, match, chosen):
    """Print the row of a network and, below it, that of its match."""
    medians, ratios, facts = measure(name, match, chosen)
    beside = " ".join(["  beside", match[0], *(f"{key}={value}" for key, value in match[1].items())])
    for title, seconds, (parameters, count) in zip((name, beside), medians, facts, strict=True):
        text = f"{title:40}{parameters:12,}{count:8}"
        text += f"{1e3 * seconds['forward'] / chosen.batch:14.3f}{1e3 * seconds['step']:12.1f}"
        print(text + (f"{ratios['forward']:12.2f}{ratios['step']:8.2f}" if title == name else ""), flush=True)


def pairs(chosen):
    """The networks asked for and their matches; those that are not registered are told and left out."""
    asked = dict(pair.split("=", 1) for pair in chosen.match.split(",") if "=" in pair)
    there = models.names()
    for name in chosen.names.split(","):
        match = (asked[name], {}) if name in asked else MATCHED.get(name, ("cnn", {}))
        missing = [each for each in (name.partition(" ")[0], match[0]) if each not in there]
        if missing or match == (name, {}):
            print(f"{name}: left out, {'no model ' + ' or '.join(missing) if missing else 'it is its own match'}")
        else:
            yield name, match


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default=",".join(MATCHED), help="networks, with commas between")
    parser.add_argument("--match", default="", help="other matches than usual: NAME=PLAIN,...")
    parser.add_argument("--size", type=int, default=28, help="side of the images")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7, help="turns, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="tiny networks, two rounds: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.size, chosen.batch, chosen.rounds = 16, 4, 2
    torch.set_num_threads(chosen.threads)
    images = f"batches of {chosen.batch} images {chosen.channels}x{chosen.size}x{chosen.size}"
    versions = f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    print(f"{platform.processor() or platform.machine()}, {chosen.threads} threads, {versions}; {images}")
    print(f"{'':40}{'parameters':>12}{'calls':>8}{'ms / image':>14}{'ms / step':>12}{'x forward':>12}{'x step':>8}")
    for name, match in pairs(chosen):
        show(name, match, chosen)


if __name__ == "__main__":
    main()
