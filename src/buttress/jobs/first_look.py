"""Before a network is attacked: whether it is right without an attack, and if not, what that usually is."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from buttress import audits, models
from buttress.audits import Subject
from buttress.audits.base.rating import above, at_chance
from buttress.audits.base.statistics import accuracy
from buttress.data.dataset import Dataset
from buttress.jobs.steadiness import unsteadiness
from buttress.models.preprocessing import NAMED, Statistics
from buttress.models.recorded_accuracy import recorded_accuracy
from buttress.models.wrapping.wrappers import nested, rewrap
from buttress.plain_data import read_json
from buttress.tasks import Task

_INPUTS = 200  # that are looked at
_BELOW = 0.1  # what an accuracy may be below the recorded one; the inputs are others
_LISTED = 20  # classes whose order is told
_GAIN = 0.1  # what another reading of the inputs must gain to be named
_WEAK = 0.5  # the share of what lies between chance and 1 below which other readings are tried
_SECONDS = 30.0  # after which no other reading is begun
_OF_IMAGES = "its mean and std (--normalise), levels of 0..255, the order of the channels (RGB or BGR)"
_OF_OTHERS = "inputs that were scaled otherwise in its training"

Figure = Mapping[str, float]
Reading = tuple[str, Callable[[Tensor], Tensor]]  # what to do, in words, and to inputs


def first_look(
    model: nn.Module, dataset: Dataset, task: Task, known: tuple[str, float] | None = None, seed: int = 0
) -> str:
    """A warning about a network that is no better than a guess, or than is recorded of it, or misread; else empty.

    Of a network that is weak on at most 200 test inputs the usual readings of images are tried: no or another
    normalisation, channels in the order BGR, dark and light or height and width exchanged; and a single output is read
    as a probability. Of classes another order is looked for, matched on one half of the inputs and counted on the
    other. After half a minute no further reading is tried, which is told. Of readings that cannot be told apart the
    simplest is named. A network whose answers change from call to call or with the batch (`unsteadiness`) is told as
    that.

    Args:
        model: the network.
        dataset: the data.
        task: what its output is for.
        known: what is recorded of its accuracy: where, and how much; see `recorded`.
        seed: of the choice of inputs.
    """
    about = audits.subject(model, dataset.test, limit=_INPUTS, classes=dataset.classes, task=task, seed=seed)
    clean, guess = _right(about, about.logits), about.chance
    unsteady = unsteadiness(about)
    below = known is not None and clean["high"] < known[1] - _BELOW
    if not below and above(clean["accuracy"], guess) >= _WEAK:
        return unsteady
    beside = ""
    if at_chance(clean, guess):
        beside = f", which one answer for all would be, too ({guess:.1%})"
    elif known is not None and below:
        beside = f", and {known[0]} says {known[1]:.1%}"
    told = f"Before anything else: {clean['accuracy']:.1%} of {len(about.y)} inputs are {task.right}{beside}"
    if unsteady:
        return f"{told}. {unsteady}"
    readings, tried, until = list(_read_otherwise(about)), [], time.monotonic() + _SECONDS
    for words, steps, outputs in readings:
        if time.monotonic() > until:
            break
        tried.append((words, steps, _right(about, outputs())))
    left = len(readings) - len(tried)
    untried = (
        f" The network is slow: {left} of {len(readings)} other readings of the inputs were not tried." if left else ""
    )
    tried += [(words, 1, figure) for words, figure in _reordered(about)]
    best = max((figure for *_, figure in tried), key=lambda figure: figure["accuracy"], default=clean)
    if best["low"] > clean["high"] and best["accuracy"] > clean["accuracy"] + _GAIN and not at_chance(best, guess):
        alike = [one for one in tried if one[2]["accuracy"] >= best["low"]]
        words, _, figure = min(alike, key=lambda one: (one[1], -one[2]["accuracy"]))
        return f"{told}. With {words} it would be {figure['accuracy']:.1%}.{untried}"
    reasons = _OF_IMAGES if about.x.dim() == 4 else _OF_OTHERS
    usual = f"the usual reasons are {reasons}, the order of the classes, and weights that are not loaded (--weights)"
    if beside:
        return f"{told}; {usual}.{untried}"
    return f"{told}.{untried}" if untried else ""


def recorded(
    reference: str, weights: Path | None, facts: Mapping[str, Any], own_data: bool
) -> tuple[str, float] | None:
    """What is recorded of a network's accuracy: beside its weights, or in the history of a run; None for nothing.

    Args:
        reference: a run's folder, or another name of a network.
        weights: its file of weights.
        facts: of the run.
        own_data: whether the run is looked at on its own data, which its history is about.
    """
    if weights is not None:
        found = recorded_accuracy(weights)
        return None if found is None else (f"{weights} ({found[0]})", found[1])
    if not own_data:
        return None
    history = Path(reference) / "history.json"
    try:
        rows = read_json(history.read_text(encoding="utf-8"))
        return f"the run, of validation data ({history})", float(rows[facts["best_epoch"] - 1]["clean"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _right(about: Subject, logits: Tensor) -> Figure:
    return accuracy(~about.task.is_adversarial(logits, about.y))


def _read_otherwise(about: Subject) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
    """Other readings of a single output or of images: in words, how many things they change, and their outputs."""
    yield from _as_probability(about)
    if about.x.dim() != 4:
        return
    inside = next((module for module in nested(about.model) if isinstance(module, models.Normalized)), None)
    if inside is not None:
        about = replace(about, model=rewrap(about.model, inside.model, inside), _logits=None)
    x, channels = about.x, about.x.shape[1]
    own = Statistics(tuple(x.mean((0, 2, 3)).tolist()), tuple(x.std((0, 2, 3)).clamp(min=1e-6).tolist()))
    statistics = {"none": Statistics((0.0,), (1.0,))}
    statistics |= {name: Statistics(*values) for name, values in NAMED.items() if Statistics(*values).fits(channels)}
    statistics["data"] = own
    orders: list[Reading] = [("", lambda x: x), ("dark and light exchanged, 1 - x, and ", lambda x: 1 - x)]
    orders += [("channels in the order BGR, x.flip(1), and ", lambda x: x.flip(1))] if channels == 3 else []
    square = x.shape[2] == x.shape[3]
    orders += [("height and width exchanged, x.mT, and ", lambda x: x.mT)] if square else []
    for words, order in orders:
        for name, values in statistics.items():
            mean, std = (x.new_tensor(part).view(-1, 1, 1) for part in (values.mean, values.std))
            steps = (words != "") + (name != "none")
            yield f"{words}--normalise {name}", steps, partial(_output, about, order, mean, std)


def _output(about: Subject, order: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor) -> Tensor:
    return about.output((order(about.x) - mean) / std)


def _as_probability(about: Subject) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
    """A single output for two classes that lies in [0, 1], with 0.5 as what is between them."""
    single = about.task.classes and about.logits.shape[1] == 2 and not bool(about.logits[:, 0].any())
    p = about.logits[:, 1:]
    if single and bool(((p >= 0) & (p <= 1)).all()):
        words = "its single output read as a probability (models.FromProbabilities, or take the sigmoid off)"
        yield words, 0, partial(torch.cat, [torch.full_like(p, 0.5), p], 1)


def _reordered(about: Subject) -> list[tuple[str, Figure]]:
    """The accuracy if the classes were those that half of the inputs say, with their order; of tasks with classes."""
    if not about.task.classes:
        return []
    chosen, y, count = about.logits.argmax(1).cpu(), about.y.cpu(), about.logits.shape[1]
    first = torch.zeros(len(y), dtype=torch.bool)
    first[y.argsort(stable=True)[::2]] = True  # of every class a half, in whatever order the data are
    meant = _meant(chosen[first], y[first], count)
    words = "its classes in another order (--classes)"
    if count <= _LISTED and count == len(about.classes):
        names = ",".join(about.classes[k] for k in _meant(chosen, y, count).tolist())
        words = f"--classes {shlex.quote(names)}, the order of its outputs,"
    return [(words, accuracy(meant[chosen[~first]] == y[~first]))]


def _meant(chosen: Tensor, y: Tensor, count: int) -> Tensor:
    """(C,) the class that each output stands for, one for one, so that most inputs are right."""
    from scipy.optimize import linear_sum_assignment

    together = np.zeros((count, count))
    np.add.at(together, (chosen.numpy(), y.numpy()), 1)
    return torch.as_tensor(linear_sum_assignment(together, maximize=True)[1])
