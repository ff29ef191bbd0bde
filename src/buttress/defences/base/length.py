"""What a method is not yet in the first epochs, held against how long is trained."""

from __future__ import annotations

from typing import Any, TypeVar

from buttress.defences.base.defence import Defence
from buttress.errors import UserError

D = TypeVar("D", bound=Defence)


def check_length(defence: Defence, epochs: int) -> None:
    """Refuse a training that ends before a method, or one inside it, is what its settings say.

    Args:
        defence: the method.
        epochs: of the training.

    Raises:
        UserError: naming the setting, and what to give instead.
    """
    for method in defence.modules():
        if isinstance(method, Defence):
            for name in method.rises:
                check_rise(f"{method.label()}: {name}", getattr(method, name), epochs)
            for name in method.begins:
                if (first := getattr(method, name)) >= epochs:
                    raise UserError(
                        f"{method.label()}: {name} {first:g} leaves it no epoch of {epochs}: give less, or more epochs"
                    )


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
