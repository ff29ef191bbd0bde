"""Every check that wants a GPU, in one command and under 12 minutes on one of NVIDIA's H200.

    pip install --no-deps torchattacks==3.5.1; pip install requests    # the peer, which may be left out
    python benchmarks/gpu.py                                           # on cuda, synthetic images
    python benchmarks/gpu.py --data-dir DIR                            # CIFAR-10's files lie there
    python benchmarks/gpu.py --only attacks training                   # some of the checks
    python benchmarks/gpu.py --tiny --accelerator cpu                  # does it run?

Each check is a process with a time limit of its own, in order of worth; what it finds is a line on the terminal and one
of JSON in --out, written as it is found, so that whatever ends the run leaves what was known until then. The exit
status is 1 where a check failed or ran out of time.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

import training as loops
from buttress import data, models
from buttress.attacks.composed.autoattack import AutoAttack
from buttress.attacks.gradient.pgd import PGD
from buttress.data.arrays import from_arrays
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.fgsm_training import NFGSMTraining
from buttress.engine.machine import Machine, device_name
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training.batches import Batches

ROOT = Path(__file__).resolve().parents[1]
EPS, STEP = loops.EPS, loops.STEP
MARK = "RESULT "  # what a check prints before each of its results


@dataclass(frozen=True)
class Size:
    """How much is computed.

    Attributes:
        model: which network.
        width: of its first stage.
        batch: images of a training step.
        batches: steps of a turn in which speed is measured.
        turns: of each contender, after one to warm up.
        inputs: attacked by PGD; a fifth of them by AutoAttack.
        steps: of the PGD attacks; 20 leave AutoAttack its usual 100 and 5,000 queries.
        epochs: of the training from scratch.
        images: that it is trained on.
        tests: which of the tests run on the device.
    """

    model: str = "resnet18"
    width: int = 64
    batch: int = 128
    batches: int = 30
    turns: int = 3
    inputs: int = 1000
    steps: int = 20
    epochs: int = 15
    images: int = 50_000
    tests: str = ""


TINY = Size(
    model="cnn",
    width=4,
    batch=8,
    batches=1,
    turns=1,
    inputs=10,
    steps=2,
    epochs=1,
    images=40,
    tests="test_attacks and -fgsm",
)


@dataclass(frozen=True)
class Work:
    """What a check is given: the device, the sizes, and perhaps CIFAR-10's files."""

    device: torch.device
    size: Size
    data_dir: str | None

    def images(self):
        """CIFAR-10, or images of its size that show their class faintly, so that there is something to learn."""
        if self.data_dir:
            return data.load("cifar10", data_dir=Path(self.data_dir)).limited(self.size.images, 0)
        random, count = torch.Generator().manual_seed(0), self.size.images + max(20, self.size.inputs)
        y = torch.arange(count) % 10
        shown = torch.rand(10, 3, 4, 4, generator=random)
        x = 0.35 * F.interpolate(shown, size=32)[y] + 0.65 * torch.rand(count, 3, 32, 32, generator=random)
        x = (255 * x).byte().numpy()
        train, test = ((x[rows], y[rows].numpy()) for rows in (slice(self.size.images), slice(self.size.images, count)))
        names = [str(number) for number in range(10)]
        settings = {"classes": names, "box": (0.0, 1.0), "val": max(10, self.size.images // 50)}
        return from_arrays("synthetic", train, test, provenance="drawn here.", **settings)

    def network(self, seed=0):
        size = {"image_size": 32} if self.size.model == "cnn" else {}
        return models.create(self.size.model, width=self.size.width, channels=3, seed=seed, **size)

    def seconds(self, call):
        """How long it takes, what the device has queued included."""
        return loops.seconds_of(call, self.device.type)


def tell(row, **figures):
    print(MARK + json.dumps({"row": row, **figures}), flush=True)


def engine(work):
    """The tests of everything that computes, with inputs and network on the device."""
    command = [sys.executable, "-m", "pytest", "tests/test_devices.py", "-n", "0", "-q", "--device", work.device.type]
    command += ["-k", work.size.tests] if work.size.tests else ["--full"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = ran.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    tell("tests", passed=ran.returncode == 0, summary=lines[-1] if lines else "", failed=failed[:20])
    return ran.returncode == 0


def plain_pgd(model, x, y, steps):
    """The loop of the field's scripts."""
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
        x_adv = torch.minimum(torch.maximum(x_adv.detach() + STEP * grad.sign(), x - EPS), x + EPS).clamp(0, 1)
    return x_adv.detach()


def peers(model, x, y, kind, **options):
    """An attack of torchattacks, in batches; None where that is not installed."""
    try:
        import torchattacks
    except ImportError:
        return None
    attack = getattr(torchattacks, kind)(model, eps=EPS, **options)
    return lambda: torch.cat([attack(*part) for part in zip(x.split(250), y.split(250), strict=True)])


def attacked_network(work):
    """A network that was adversarially trained for a moment, and test inputs, on the device."""
    dataset, model = work.images(), work.network()
    part = dataset.limited(min(work.size.images, 5000), 0)
    optimiser = Optimiser(name="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4)
    settings = {"epochs": 1, "batch_size": work.size.batch, "optimiser": optimiser, "accelerator": work.device.type}
    fit(model, part, NFGSMTraining(Threat(eps=EPS)), validate_with="none", keep="last", **settings)
    split = dataset.test.stratified(min(work.size.inputs, len(dataset.test)), 0)
    x, y, _ = split.take(torch.arange(len(split)))
    return model.to(work.device).eval(), x.to(work.device), y.to(work.device)


def compared(work, model, x, y, contenders, warm_up=1):
    """Robust accuracy and seconds of each contender, which take turns; ratios to the first."""
    seconds, robust = {name: [] for name in contenders}, {}
    for turn in range(work.size.turns + 1 if warm_up else 1):
        for name, attack in contenders.items():
            points = []
            taken = work.seconds(lambda attack=attack, points=points: points.append(attack()))
            if turn >= warm_up:
                seconds[name].append(taken)
            with torch.no_grad():
                right = torch.cat([model(part).argmax(1) for part in points[0].split(250)]) == y
            robust[name] = float(right.float().mean())
            if not bool(Threat(eps=EPS).contains(points[0], x, 1e-6).all()):
                tell(name, outside_the_threat=True)
                return False
    first = next(iter(contenders))
    for name in contenders:
        best = min(seconds[name])
        figures = {"robust": robust[name], "seconds": round(best, 3), "inputs": len(x)}
        tell(name, **figures, times_as_long_as={first: round(best / min(seconds[first]), 3)})
    return True


def attacks(work):
    """PGD against a plain loop and torchattacks, at equal steps."""
    model, x, y = attacked_network(work)
    ours = PGD(threat=Threat(eps=EPS), steps=work.size.steps, step_size=STEP)
    contenders = {
        "plain loop": lambda: torch.cat(
            [plain_pgd(model, *part, work.size.steps) for part in zip(x.split(250), y.split(250), strict=True)]
        )
    }
    for precision in ("fp32", "twin", "compiled"):
        if precision != "compiled" or work.device.type == "cuda":
            contenders[f"buttress {precision}"] = functools.partial(_points, ours, model, x, y, precision, "full")
    theirs = peers(model, x, y, "PGD", alpha=STEP, steps=work.size.steps)
    if theirs is not None:
        contenders["torchattacks"] = theirs
    return compared(work, model, x, y, contenders)


def autoattack(work):
    """Standard AutoAttack against that of torchattacks: the same robust accuracy is to come out."""
    model, x, y = attacked_network(work)
    count = max(2, len(x) // 5)
    x, y = x[:count], y[:count]
    ours = AutoAttack(threat=Threat(eps=EPS), steps=5 * work.size.steps, queries=250 * work.size.steps)
    contenders = {}
    theirs = peers(model, x, y, "AutoAttack", norm="Linf", version="standard", n_classes=10)
    if theirs is not None:
        contenders["torchattacks"] = theirs
    for precision in ("fp32", "twin"):
        contenders[f"buttress {precision}"] = functools.partial(_points, ours, model, x, y, precision, "first")
    plain_pgd(model, x, y, 2)  # what first passes take longer is over
    return compared(work, model, x, y, contenders, warm_up=0)


def _points(attack, model, x, y, precision, search):
    return attack(model, x, y, precision=precision, search=search, batch_size=250).x_adv


def plain_n_fgsm(model, dataset, epochs, batch_size, seed, device):
    """N-FGSM as the authors' script has it: noise of 2 eps, one step, no ball, BatchNorm in train mode."""
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(epochs):
        for batch in Batches(dataset, batch_size, seed, torch.device(device)).epoch(epoch):
            x, y = batch.x, batch.y
            model.train()
            noise = torch.empty_like(x).uniform_(-2 * EPS, 2 * EPS)
            start = (x + noise).clamp(0, 1).requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(model(start), y), start)
            x_adv = (start.detach() + EPS * grad.sign()).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(model(x_adv), y).backward()
            optimizer.step()
    model.eval()


def trainer(work, model, dataset, defence, precision, search, **more):
    settings = {"precision": precision, "search_precision": search, "keep": "last", "validate_with": "none"}
    settings |= {"batch_size": work.size.batch, "accelerator": work.device.type, "epochs": 1, "validate_on": 1, **more}
    return fit(model, dataset, defence, optimiser=Optimiser(name="sgd", lr=0.05, weight_decay=5e-4), **settings)


def training(work):
    """PGD-10 and N-FGSM training: images a second of the trainer and of plain loops."""
    size = work.size
    dataset, count = loops.random_images(size.batch * size.batches), size.batch * size.batches
    threat = Threat(eps=EPS)
    methods = {
        "PGD-10": (loops.plain, AdversarialTraining(PGD(threat=threat, steps=10, step_size=STEP))),
        "N-FGSM": (plain_n_fgsm, NFGSMTraining(threat)),
    }
    for name, (plain, defence) in methods.items():
        ways = {
            "plain loop": lambda model, turn, plain=plain: plain(model, dataset, 1, size.batch, turn, work.device.type)
        }
        for way, settings in {"fp32": ("32-true", "fp32"), "twin and bf16": ("bf16-mixed", "twin")}.items():
            ways[way] = lambda model, turn, settings=settings, defence=defence: trainer(
                work, model, dataset, defence, *settings, seed=turn
            )
        seconds = {way: [] for way in ways}
        for turn in range(size.turns + 1):
            for way, train in ways.items():
                model = work.network()
                taken = work.seconds(lambda train=train, model=model, turn=turn: train(model, turn))
                if turn:
                    seconds[way].append(taken)
        for way, found in seconds.items():
            best = min(found)
            ratio = min(seconds["plain loop"]) / best
            tell(f"{name}, {way}", images_per_second=round(count / best, 1), times_the_plain_loop=round(ratio, 3))
    return True


def scratch(work):
    """CIFAR-10, or images of its size, from scratch by N-FGSM and a cyclic rate, in bf16; then PGD on test inputs."""
    dataset, model = work.images(), work.network()
    start = time.perf_counter()
    epochs = {"epochs": work.size.epochs, "validate_on": 500}
    trainer(work, model, dataset, NFGSMTraining(Threat(eps=EPS)), "bf16-mixed", "twin", **epochs)
    spent = time.perf_counter() - start
    split = dataset.test.stratified(min(work.size.inputs, len(dataset.test)), 0)
    x, y, ids = (values.to(work.device) for values in split.take(torch.arange(len(split))))
    model.to(work.device)
    attack = PGD(threat=Threat(eps=EPS), steps=work.size.steps)
    outcome = attack(model, x, y, ids=ids, search="first", batch_size=250)
    with torch.no_grad():
        clean = float((torch.cat([model(part) for part in x.split(250)]).argmax(1) == y).float().mean())
    robust = 1 - float(outcome.success.float().mean())
    figures = {"epochs": work.size.epochs, "seconds": round(spent, 3), "clean": clean, "robust": robust}
    tell(dataset.name, images=len(dataset.train), **figures)
    return True


# In order of worth, with their time limits in seconds: 11.5 minutes in all.
CHECKS = {engine: 180, attacks: 110, training: 130, autoattack: 140, scratch: 130}
BY_NAME = {check.__name__: check for check in CHECKS}


def supervised(name, limit, words, keep):
    """Run a check in a process of its own, and hand on each of its results as it comes; how it ended."""
    command = [sys.executable, str(Path(__file__).resolve()), "--check", name, *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    start = time.perf_counter()
    late, errors = threading.Event(), []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:

        def stop():
            late.set()
            os.killpg(process.pid, 9)  # with the processes that it has started

        reader = threading.Thread(target=lambda: errors.extend(process.stderr))
        timer = threading.Timer(limit, stop)
        reader.start()
        timer.start()
        for line in process.stdout:
            if line.startswith(MARK):
                keep({"check": name, **json.loads(line[len(MARK) :])})
        status = process.wait()
        timer.cancel()
        reader.join()
    ended = "out of time" if late.is_set() else "done" if status == 0 else "failed"
    why = {"error": "".join(errors)[-2000:]} if ended == "failed" else {}
    keep({"check": name, "ended": ended, "seconds": round(time.perf_counter() - start, 1), **why})
    return ended


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="cuda", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--data-dir", help="where CIFAR-10's files are; synthetic images unless given")
    parser.add_argument("--only", nargs="+", choices=BY_NAME, default=list(BY_NAME), help="these checks")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), help="results, a JSON object a line")
    parser.add_argument("--limit", type=float, help="seconds of each check, in the place of its own limit")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and few inputs: does it run?")
    parser.add_argument("--check", choices=BY_NAME, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    chosen = arguments()
    device, size = Machine(accelerator=chosen.accelerator).device, TINY if chosen.tiny else Size()
    if chosen.check:
        return 0 if BY_NAME[chosen.check](Work(device, size, chosen.data_dir)) else 1
    words = ["--accelerator", device.type, *(["--tiny"] if chosen.tiny else [])]
    words += ["--data-dir", chosen.data_dir] if chosen.data_dir else []
    with chosen.out.open("a", encoding="utf-8") as file:

        def keep(result):
            file.write(json.dumps(result) + "\n")
            file.flush()
            print("  ".join(f"{name}={value}" for name, value in result.items()), flush=True)

        keep({"device": device_name(device), "torch": torch.__version__, "started": time.strftime("%Y-%m-%d %H:%M")})
        ended = [
            supervised(check.__name__, chosen.limit or limit, words, keep)
            for check, limit in CHECKS.items()
            if check.__name__ in chosen.only
        ]
    return 0 if set(ended) == {"done"} else 1


if __name__ == "__main__":
    sys.exit(main())
