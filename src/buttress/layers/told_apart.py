"""Whether a layer's name means in training what it means in evaluation.

A name follows the place in the code, and counts the runs where one place runs several times (see `capture`). A loop
that is longer in one mode, or that skips some of its layers in training (LayerDrop), then gives the same number to
another run. A module has a name of its own, which stays with it whether it is skipped or not. Of exclusive branches
each has a first call of a function, so that one name stands for two places in the code: then what the values are
computed of is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import Mode, preserved
from buttress.errors import UserError
from buttress.layers.origins import nearest_parameters, written_alike
from buttress.layers.places import Place
from buttress.layers.running import Site
from buttress.layers.select import user_module
from buttress.layers.watcher import watch
from buttress.model_call import call_model

_DRAWS = 8  # training passes compared: one alone may happen to skip nothing
_COUNTS = "its name counts the runs of one place in the code, "
_ELSEWHERE = "another place in the code runs it in training, which computes something else"
_REMEDY = "so it does not say which is meant (a module of its own for each run would)"


class Seen(NamedTuple):
    """What a pass showed.

    Attributes:
        values: of the layers asked for.
        places: name -> where it was called, of all layers, in the order of execution.
        sites: name -> by which very calls in the code.
    """

    values: Mapping[str, Tensor]
    places: Mapping[str, Place]
    sites: Mapping[str, Site]


def look(model: nn.Module, x: Tensor, layers: Sequence[str], mode: Mode, seed: int = 0) -> Seen:
    """What one pass of the network shows, which leaves no trace; of named layers the values, with their graph."""
    values: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        values[name] = value
        return value

    with (
        preserved(model, mode, seed, x.device),
        torch.enable_grad(),
        watch(model, list(layers), keep, values=values) as watcher,
    ):
        call_model(model, x)
    return Seen(values, watcher.places, watcher.sites)


@in_usual_state
def look_in_training(model: nn.Module, x: Tensor, layers: Sequence[str]) -> Iterator[Seen]:
    """The same of several passes in training mode, each with draws of its own."""
    for draw in range(_DRAWS):
        yield look(model, x, layers, "train", draw)


def another_meaning(name: str, usual: Mapping[str, Place], training: Mapping[str, Place]) -> str | None:
    """Why a name may mean another layer in a training pass than in evaluation.

    Args:
        name: of a layer that evaluation runs.
        usual: where each layer of a pass in evaluation was called.
        training: the same of a training pass.

    Returns:
        The reason, to follow the layer's name; None where it means the same, and where that place does not run.
    """
    usual, training = _as_named(usual), _as_named(training)
    place = usual[name]
    runs, others = ([one for one, at in places.items() if at == place] for places in (usual, training))
    if not others and name not in training:
        return None
    if len(runs) != len(others):
        return f"{_COUNTS}{len(runs)} in evaluation and {len(others)} in training, {_REMEDY}"
    if runs != others:
        return f"{_COUNTS}which have other numbers in training, {_REMEDY}"
    if len(runs) == 1:
        return None
    counted = _repeated(usual) | _repeated(training)
    before, instead = (_between(places, runs, counted)[runs.index(name)] for places in (usual, training))
    shared = [one for one in before if one in instead]
    before, instead = (part[part.index(shared[-1]) + 1 if shared else 0 :] for part in (before, instead))
    moved = any(one in usual and one in training for one in (*before, *instead))
    if moved or (before and instead):
        here, there = (", ".join(part) or "nothing else" for part in (before, instead))
        return f"{_COUNTS}and this one comes behind {here} in evaluation and {there} in training, {_REMEDY}"
    return None


def _as_named(places: Mapping[str, Place]) -> dict[str, Place]:
    """The first of several places like the only one, which has the same name: modes may run the same by other code."""
    return {name: place._replace(numbers=place.numbers if any(place.numbers) else ()) for name, place in places.items()}


def _repeated(places: Mapping[str, Place]) -> set[str]:
    """The layers whose place runs several times, so that their names count."""
    runs = Counter(places.values())
    return {name for name, place in places.items() if runs[place] > 1}


def _between(places: Mapping[str, Place], runs: Sequence[str], counted: Container[str]) -> list[list[str]]:
    """For each run of a place, which layers came since the one before, without those whose names count."""
    found: list[list[str]] = [[]]
    for name in places:
        if name in runs:
            found.append([])
        elif name not in counted:
            found[-1].append(name)
    return found


class Origins:
    """Whether named layers are computed of the same in training as in evaluation, as passes show it.

    Two places in the code may be of one layer that is written twice, or of two. One place may be of two, where what it
    is given comes of other parameters in every training pass; in some of them it may, as layers before it are skipped.

    Args:
        usual: a pass in evaluation.
    """

    def __init__(self, usual: Seen) -> None:
        self._sites = usual.sites
        self._parameters = {name: nearest_parameters(value) for name, value in usual.values.items()}
        self._elsewhere: set[str] = set()
        self._fed_alike: set[str] = set()
        self._fed: dict[str, set[nn.Parameter]] = {}

    def note(self, training: Seen) -> None:
        """Compare with a training pass."""
        for name, value in training.values.items():
            before, now = self._parameters.get(name) or set(), nearest_parameters(value)
            if name in self._sites and training.sites[name] != self._sites[name]:
                self._elsewhere.add(name)
            if before & now or not before or not now:
                self._fed_alike.add(name)
            else:
                self._fed.setdefault(name, now)

    def reasons(self, model: nn.Module, x: Tensor) -> dict[str, str]:
        """Why layers mean something else in training, by name, to follow the layer's name."""
        found: dict[str, str] = {}
        for name in self._fed.keys() - self._fed_alike:
            usual, training = (_owners(model, some) for some in (self._parameters[name], self._fed[name]))
            found[name] = f"it is computed of {usual} in evaluation and of {training} in training"
        if unsure := [name for name in self._elsewhere if name not in found]:
            alike = written_alike(model, x, unsure, _DRAWS)
            found |= {name: f"{_ELSEWHERE}, {_REMEDY}" for name in unsure if name not in alike}
        return found


def _owners(model: nn.Module, parameters: set[nn.Parameter]) -> str:
    """The modules that these parameters are of."""
    named = user_module(model).named_parameters()
    owners = [name.rpartition(".")[0] or name for name, parameter in named if parameter in parameters]
    return ", ".join(dict.fromkeys(owners)) or "other parameters"


@in_usual_state
def check_names(model: nn.Module, x: Tensor, layers: Sequence[str], *, always: bool = True) -> None:
    """Refuse layers whose names mean another layer in training.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs, 2 or more.
        layers: names.
        always: whether to refuse layers, too, that some training passes skip.

    Raises:
        UserError: for the first of them, saying what was seen in either mode.
    """
    if not layers:
        return
    usual = look(model, x, layers, "eval")
    origins = Origins(usual)
    for training in look_in_training(model, x, layers):
        origins.note(training)
        for layer in usual.places.keys() & set(layers):
            reason = another_meaning(layer, usual.places, training.places)
            if reason is None and always and layer not in training.places:
                reason = "some training passes skip it"
            if reason is not None:
                raise UserError(refusal(layer, reason))
    for layer, reason in origins.reasons(model, x).items():
        raise UserError(refusal(layer, reason))


def refusal(layer: str, reason: str, use: str = "used in training") -> str:
    """The line that says why a layer cannot be used, and what to do."""
    return f"layer {layer!r} cannot be {use}, for {reason}: name another"
