"""Our attacks beside their namesakes in torchattacks and foolbox: strength and time at equal budgets, on two networks.

    python benchmarks/peers.py --quick
    python benchmarks/peers.py --inputs 200 --only cw ddn
    python benchmarks/peers.py --weights model.safetensors

A small CNN is trained here on fashion-mini, once plainly and once adversarially; with --weights that network is taken
instead. Attacks within a budget are compared by robust accuracy, minimum-norm attacks by the median distance, and both
by a difference in points: of the robust accuracies, or of the shares of inputs that stand at the peer's median
distance. Positive is weaker than the peer. Attacks that only ask for outputs get as many queries as their peer spent.
"""

import argparse
import dataclasses
import math
import time
import warnings

import torch
import torch.nn.functional as F

from buttress import data, models, registry
from buttress.attacks import PGD
from buttress.threat import Threat, norms

ALLOWED = 0.5  # points that one of ours may be weaker by
BUDGETS = {"plain": {"linf": 0.04, "l2": 0.8}, "adversarial": {"linf": 0.1, "l2": 1.2}}


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: ours, in the registry.
        budget: in words.
        ours: fields of our attack, or a function of the forward passes that the peer spent on an input.
        library: "torchattacks" or "foolbox".
        peer: (library, model, eps) -> a function of (x, y) that gives perturbed inputs.
        norm: of the threat.
        minimum: whether it is compared by distance.
        most: inputs at most, for peers that go one by one.
        targeted: whether both aim at the class after the truth.
    """

    name: str
    budget: str
    ours: object
    library: str
    peer: object
    norm: str = "linf"
    minimum: bool = False
    most: int = 10**9
    targeted: bool = False


def of_torchattacks(kind, **options):
    def made(library, model, eps):
        filled = {key: value(eps) if callable(value) else value for key, value in options.items()}
        return getattr(library, kind)(model, **filled)

    return made


def of_foolbox(kind, *, from_another=False, **options):
    """``from_another``: its walk begins at another image; its own starting points are refused where one fails."""

    def made(library, model, eps):
        bounded = library.PyTorchModel(model, bounds=(0, 1))
        attack = getattr(library.attacks, kind)(**options)
        more = (lambda x, y: {"starting_points": another(model, x, y)}) if from_another else (lambda x, y: {})
        return lambda x, y: attack(bounded, x, y, epsilons=None, **more(x, y))[0]

    return made


def another(model, x, y):
    """For each input the first of them that the model takes for another class than the input's."""
    with torch.no_grad():
        answer = model(x).argmax(1)
    return x[(answer[None] != y[:, None]).int().argmax(1)]


def itself(eps):
    return eps


def rows(quick):
    """What is compared; with ``quick`` at a fraction of the steps."""
    few = 5 if quick else 20
    many = 10 if quick else 100
    cw = {"steps": 50, "search_steps": 3} if quick else {"steps": 100, "search_steps": 9}
    step = {"steps": few, "step_size": None}

    def alpha(eps):
        return 2.5 * eps / few

    def ta(kind, **options):
        return "torchattacks", of_torchattacks(kind, eps=itself, **options)

    def steps(kind, **options):
        return ta(kind, alpha=alpha, steps=few, **options)

    def fb(kind, **options):
        return "foolbox", of_foolbox(kind, **options)

    def spsa(spent):
        return {"steps": few, "samples": max(1, round((spent / few - 1) / 2)), "delta": 0.01, "lr": 0.01}

    far = {"minimum": True}
    made = [
        Row("fgsm", "1 step", {}, *ta("FGSM")),
        Row("bim", f"{few} steps", step, *steps("BIM")),
        Row("pgd", f"{few} steps", step, *steps("PGD")),
        Row("pgd", f"{few} steps", step, *steps("PGDL2"), norm="l2"),
        Row("mi-fgsm", f"{few} steps", step, *steps("MIFGSM")),
        Row("ni-fgsm", f"{few} steps", step, *steps("NIFGSM")),
        Row("di-fgsm", f"{few} steps", step, *steps("DIFGSM", decay=1.0)),
        Row("ti-fgsm", f"{few} steps", step, *steps("TIFGSM", decay=1.0, diversity_prob=0.0)),
        Row("apgd", f"{many} steps", {"steps": many}, *ta("APGD", steps=many, norm="Linf")),
        Row("apgd", f"{many} steps", {"steps": many}, *ta("APGD", steps=many, norm="L2"), norm="l2"),
        Row("fab", f"{few} steps", {"steps": few}, *ta("FAB", steps=few, norm="Linf")),
        Row("fab", f"{few} steps", {"steps": few}, *ta("FAB", steps=few, norm="L2"), norm="l2"),
    ]
    queries = 100 if quick else 1000
    for norm, theirs in (("linf", "Linf"), ("l2", "L2")):
        ours, peer = {"queries": queries, "rescale": True}, ta("Square", n_queries=queries, norm=theirs)
        made.append(Row("square", f"{queries} queries", ours, *peer, norm=norm))
    made += [
        Row("spsa", "as many queries", spsa, *ta("SPSA", nb_iter=few, nb_sample=32), most=50),
        Row("jsma", "a tenth of the pixels", {}, "torchattacks", of_torchattacks("JSMA"), most=10, targeted=True),
        Row("one-pixel", "as many queries", _one_pixel, "torchattacks", of_torchattacks("OnePixel"), most=30),
        Row(
            "cw",
            "{search_steps} x {steps} steps".format(**cw),
            cw,
            *fb("L2CarliniWagnerAttack", steps=cw["steps"], binary_search_steps=cw["search_steps"]),
            norm="l2",
            **far,
        ),
        Row("deepfool", "50 steps", {}, *fb("L2DeepFoolAttack"), norm="l2", **far),
        Row("deepfool", "50 steps", {}, *fb("LinfDeepFoolAttack"), **far),
        Row("ddn", f"{many} steps", {"steps": many}, *fb("DDNAttack", steps=many), norm="l2", **far),
        Row("fmn", f"{many} steps", {"steps": many}, *fb("LInfFMNAttack", steps=many), **far),
        Row("fmn", f"{many} steps", {"steps": many}, *fb("L2FMNAttack", steps=many), norm="l2", **far),
        Row("fmn", f"{many} steps", {"steps": many}, *fb("L1FMNAttack", steps=many), norm="l1", **far),
    ]
    walk = fb("BoundaryAttack", steps=10 * many, from_another=True)
    hops = fb("HopSkipJumpAttack", steps=2 if quick else 10, from_another=True)
    asked = {"norm": "l2", "most": 50, **far}
    made.append(Row("boundary-attack", "as many queries", _queries, *walk, **asked))
    made.append(Row("hopskipjump", "as many queries", _queries, *hops, **asked))
    return made


def _queries(spent):
    return {"queries": max(1, math.floor(spent))}


def _one_pixel(spent):
    """The peer's population: 10 for all genes of a pixel on a grey image, of which it makes 3 a gene."""
    return {"queries": max(1, math.floor(spent)), "population": 9}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mini", help="images that a CNN of ours can be trained on")
    parser.add_argument("--weights", help="of a cnn of this width; otherwise two networks are trained here")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--inputs", type=int, default=200, help="test images; one is 100 / inputs points")
    parser.add_argument("--only", nargs="*", default=[], help="names of ours")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="few steps and inputs: does it run?")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.inputs, chosen.epochs = 20, 3
    return chosen


def trained(chosen, x, y, eps):
    """A CNN after a few epochs of Adam, on what PGD-5 makes of each batch when there is an eps."""
    model = models.create("cnn", image_size=x.shape[-1], channels=x.shape[1], width=chosen.width, seed=0)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(0)
    attack = PGD(threat=Threat(eps=eps), steps=5)
    for epoch in range(chosen.epochs):
        for batch in torch.randperm(len(x), generator=order).split(128):
            inputs = attack.craft(model, x[batch], y[batch], seed=epoch, ids=batch) if eps else x[batch]
            adam.zero_grad()
            F.cross_entropy(model(inputs), y[batch]).backward()
            adam.step()
    return model.eval()


def networks(chosen, x, y):
    """Name -> network; the name decides the budgets."""
    if chosen.weights:
        model = models.create("cnn", image_size=x.shape[-1], channels=x.shape[1], width=chosen.width, seed=0)
        models.load_weights(model, chosen.weights)
        return {"plain": model.eval()}
    return {name: trained(chosen, x, y, BUDGETS[name]["linf"] * (name == "adversarial")) for name in BUDGETS}


def run_peer(row, library, model, x, y, eps):
    """The peer's inputs, seconds, and forward passes for each input; it draws from torch's own stream."""
    torch.manual_seed(0)
    seen = []
    hook = model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attack = row.peer(library, model, eps)
            x_adv = attack(x, y)
    finally:
        hook.remove()
    return x_adv.detach(), time.perf_counter() - start, sum(seen) / len(x)


def run_ours(row, model, x, y, eps, spent):
    fields = row.ours(spent) if callable(row.ours) else row.ours
    free = row.minimum or row.name in ("jsma", "one-pixel")
    attack = registry.attack.get(row.name)(threat=Threat(norm=row.norm, eps=math.inf if free else eps), **fields)
    target = (y + 1) % 10 if row.targeted else None
    start = time.perf_counter()
    result = attack(model, x, y, target=target)
    passes = float((result.forwards + result.backwards).double().mean())
    return result.x_adv, time.perf_counter() - start, passes


def standing(model, x_adv, y, targeted):
    """(N,) bool, where the model has not been beaten."""
    with torch.no_grad():
        answer = model(x_adv).argmax(1)
    return answer != (y + 1) % 10 if targeted else answer == y


def compare(row, model, x, y, ours, theirs):
    """What to print of both, and by how many points ours is weaker."""
    stand = [standing(model, x_adv, y, row.targeted) for x_adv in (ours, theirs)]
    if not row.minimum:
        accuracy = [100 * float(left.double().mean()) for left in stand]
        return *(f"{value:.1f}%" for value in accuracy), accuracy[0] - accuracy[1]
    sizes = [norms((x_adv - x).double(), row.norm) for x_adv in (ours, theirs)]
    sizes = [torch.where(left, math.inf, size) for left, size in zip(stand, sizes, strict=True)]
    median = sizes[1].median()
    shares = [100 * float((size > median * (1 + 1e-4)).double().mean()) for size in sizes]
    return *(f"{float(size.median()):.4f}" for size in sizes), shares[0] - shares[1]


def libraries():
    """Name -> module, of those that are installed."""
    found = {}
    for name in ("torchattacks", "foolbox"):
        try:
            found[name] = __import__(name)
        except ImportError as error:
            print(f"{name} is left out: {error}; pip install --no-deps {name}")
    return found


def main():
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    found, known = libraries(), registry.attack.names()
    dataset = data.load(chosen.data)
    train = dataset.train.stratified(2000) if chosen.quick else dataset.train
    x_train, y_train, _ = train.take(torch.arange(len(train)))
    test = dataset.test.stratified(chosen.inputs)
    x, y, _ = test.take(torch.arange(len(test)))
    print(f"{len(x)} test images of {chosen.data}, {chosen.threads} threads, torch {torch.__version__}")
    heads = ("attack", "norm", "budget", "peer", "ours", "theirs", "points", "verdict", "passes", "s ours", "s theirs")
    form = "{:16}{:5}{:22}{:13}{:>9}{:>9}{:>8}  {:8}{:>8}{:>8}{:>9}"
    weaker = []
    for name, model in networks(chosen, x_train, y_train).items():
        clean = 100 * float(1 - standing(model, x, y, False).logical_not().double().mean())
        PGD(steps=1)(model, x[:2], y[:2])  # the first call loads what torch loads late
        print(f"\n{name}: clean accuracy {clean:.1f}%, eps {BUDGETS[name]}\n{form.format(*heads)}")
        for row in rows(chosen.quick):
            if row.name not in known or row.library not in found or (chosen.only and row.name not in chosen.only):
                continue
            eps, part = BUDGETS[name].get(row.norm, math.inf), slice(min(row.most, len(x)))
            try:
                theirs, their_seconds, spent = run_peer(row, found[row.library], model, x[part], y[part], eps)
            except Exception as error:  # some peers take colour images only
                print(f"{row.name:16}{row.norm:5}{row.budget:22}{row.library:13} fails: {str(error)[:60]}")
                continue
            ours, seconds, passes = run_ours(row, model, x[part], y[part], eps, spent)
            *values, points = compare(row, model, x[part], y[part], ours, theirs)
            verdict = "ok" if points <= ALLOWED else "WEAKER"
            weaker += [f"{name}: {row.name} {row.norm}"] * (points > ALLOWED)
            cells = (*values, f"{points:+.1f}", verdict, f"{passes:.0f}", f"{seconds:.1f}", f"{their_seconds:.1f}")
            print(form.format(row.name, row.norm, row.budget, row.library, *cells), flush=True)
    print(f"\nweaker than the peer by more than {ALLOWED} points: {', '.join(weaker) or 'none'}")


if __name__ == "__main__":
    main()
