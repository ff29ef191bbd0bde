"""What a method is not yet in the first epochs, held against how long is trained."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from buttress.defences.base.defence import Defence
from buttress.errors import UserError

D = TypeVar("D", bound=Defence)


def check_length(defence: Defence, epochs: int, *, defaults: bool = True) -> None:
    """Refuse a training that ends before a method, or one inside it, is what its settings say.

    Args:
        defence: the method.
        epochs: of the training.
        defaults: whether settings count that were left at their defaults, as they need not in a trial.

    Raises:
        UserError: naming the setting, and what to give instead.
    """
    for method in defence.modules():
        if not isinstance(method, Defence):
            continue
        for name in (*method.rises, *method.begins):
            value = getattr(method, name)
            if not defaults and value == inspect.signature(type(method)).parameters[name].default:
                continue
            what = f"{method.label()}: {name}"
            check_rise(what, value, epochs)
            if name in method.begins and value == epochs:
                raise UserError(f"{what} {value:g} leaves it no epoch of {epochs}: give less, or more epochs")


def check_rise(name: str, over: float, epochs: int) -> None:
    """Refuse epochs over which something rises, where training ends before it has risen.

    Raises:
        UserError: with both.
    """
    if over > epochs:
        raise UserError(
            f"{name} {over:g} is longer than the training, which ends after {epochs}: give {epochs} or less, or more "
            "epochs"
        )


def for_share(defence: D, share: float) -> D:
    """The method for a training of a share of the length: what it waits for comes after that share of its epochs.

    A fresh copy; itself where neither it nor a method inside waits for anything.
    """
    settings = defence.settings()
    changes: dict[str, Any] = {name: settings[name] * share for name in (*defence.rises, *defence.begins)}
    for name, value in settings.items():
        if isinstance(value, Defence) and (inside := for_share(value, share)) is not value:
            changes[name] = inside
    return type(defence)(**settings | changes) if changes else defence
