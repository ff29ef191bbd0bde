"""Checks of what the analyses of layers are given, each with its one-line error."""

from __future__ import annotations

from buttress.attacks import Perturbation
from buttress.errors import UserError
from buttress.layers.select import LayerSelection, Selection, user_module
from buttress.tasks import require_task
from buttress.validation import integer, whole


def check_settings(model: object, layers: LayerSelection, seed: object, batch_size: object, task: object) -> None:
    """Refuse what is no network, no selection of layers, no seed, no number of inputs or no task.

    Raises:
        UserError: naming the argument, what it must be, and what came.
    """
    user_module(model)
    Selection(layers)
    integer("seed", seed)
    whole("batch_size", batch_size)
    require_task(task)


def check_perturbation(perturbation: object, name: str = "perturbation") -> None:
    """Refuse what is neither an attack nor a noise.

    Args:
        perturbation: what came.
        name: of the argument.

    Raises:
        UserError: naming it, and what came.
    """
    if not isinstance(perturbation, Perturbation):
        came = type(perturbation).__name__
        raise UserError(f"{name} must be an attack or a noise; got a {came}: give one, such as attacks.PGD()")
