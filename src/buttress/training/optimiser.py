"""The optimiser: any class of torch.optim by its name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from buttress.errors import UserError
from buttress.registry import nearest
from buttress.validation import not_negative, number, positive

_REFUSED = {
    "lbfgs": "it evaluates the loss several times an update, which a defence's step does not",
    "sparseadam": "it takes sparse gradients, and networks give dense ones",
}


def classes() -> dict[str, type[torch.optim.Optimizer]]:
    """The optimisers of torch by their names in small letters."""
    members = [member for member in vars(torch.optim).values() if isinstance(member, type)]
    kinds = [kind for kind in members if issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer]
    return {kind.__name__.lower(): kind for kind in kinds}


def check_args(owner: str, args: Mapping[str, Any], names: Iterable[str], fields: Iterable[str]) -> None:
    """Refuse arguments that a class of torch does not have, and those that are no plain data.

    Args:
        owner: the class in words, for the error line.
        args: the arguments.
        names: those that the class has.
        fields: those of them that are settings of their own.

    Raises:
        UserError: naming the first one.
    """
    for name in args:
        if name in fields:
            raise UserError(f"{owner}: {name} is set by itself, not in args")
        if name not in names:
            raise UserError(f"{owner} has no argument {name!r}; {nearest(str(name), list(names))}")
    try:
        json.dumps(dict(args))
    except (TypeError, ValueError):
        raise UserError(f"{owner}: args must be numbers, texts, lists and mappings of those; got {args!r}") from None


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """How weights are updated.

    Args:
        name: sgd, adam, adamw, or any other class of torch.optim in small letters, such as rmsprop.
        lr: the highest learning rate of the schedule.
        momentum: of sgd; other optimisers take theirs in args.
        nesterov: sgd with Nesterov's momentum.
        weight_decay: 0 or more.
        args: further arguments of the class, as in {betas: [0.9, 0.99]}.
    """

    name: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        known = [name for name in classes() if name not in _REFUSED]
        key = self.name.lower()
        if key in _REFUSED:
            raise UserError(f"the optimiser {self.name} cannot train here: {_REFUSED[key]}; type one of {_list(known)}")
        if key not in known:
            raise UserError(f"there is no optimiser {self.name!r}; {nearest(key, known)}")
        positive("lr", self.lr)
        not_negative("weight_decay", self.weight_decay)
        number("momentum", self.momentum, "[0, 1)")
        if key != "sgd" and (self.momentum, self.nesterov) != (Optimiser.momentum, Optimiser.nesterov):
            raise UserError(f"momentum and nesterov are settings of sgd; {self.name} takes its own arguments in args")
        names = self._parameters()
        if self.weight_decay and "weight_decay" not in names:
            raise UserError(f"the optimiser {self.name} has no weight decay; got {self.weight_decay}")
        check_args(f"the optimiser {self.name}", self.args, names, self._settings())
        self.build([nn.Parameter(torch.zeros(1, 1))])  # values that torch refuses are refused now

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of torch for these parameters.

        Raises:
            UserError: for values or parameters that torch refuses.
        """
        kind: Any = classes()[self.name.lower()]
        try:
            optimizer: torch.optim.Optimizer = kind(parameters, **self._settings(), **self.args)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"the optimiser {self.name}: {' '.join(str(error).split())}") from None
        return optimizer

    def _parameters(self) -> list[str]:
        return [name for name in inspect.signature(classes()[self.name.lower()]).parameters if name != "params"]

    def _settings(self) -> dict[str, Any]:
        """The fields that this class of torch takes."""
        settings = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.name.lower() == "sgd":
            settings |= {"momentum": self.momentum, "nesterov": self.nesterov}
        return {name: value for name, value in settings.items() if name in self._parameters()}


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
