"""What is known of a function of torch's before it runs; and how those run that are given functions."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import torch
from torch._ops import HigherOrderOperator

from buttress.errors import UserError
from buttress.layers.select import activation_kind

_WRITING_OPERATORS = frozenset(
    (
        *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__", "__iand__"),
        *("__ior__", "__ixor__", "__ilshift__", "__irshift__", "__setitem__"),
    )
)


@lru_cache(maxsize=4096)
def facts(function: str) -> tuple[str, str | None, bool]:
    """Of a torch function: its name without an overload's, its activation, and whether it overwrites an argument."""
    name = function.partition(".")[0]
    writes = (name.endswith("_") and not name.endswith("__")) or name in _WRITING_OPERATORS
    return name, activation_kind(name), writes


def run_operator(
    watching: AbstractContextManager[Any], operator: HigherOrderOperator, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run an operator that is given functions, as `torch.cond` and `scan` are; eager torch would compile it.

    Args:
        watching: the context in which functions are seen.
        operator: that.
        args: its arguments.
        kwargs: those with a name.

    Raises:
        UserError: for one that runs compiled alone.
    """
    if operator is torch.ops.higher_order.cond and not kwargs:
        condition, when_true, when_false, operands = args
        with watching:  # the branch that is taken is seen as it was written
            return (when_true if condition else when_false)(*operands)
    try:
        return operator(*args, **kwargs)
    except AssertionError as error:
        raise UserError(
            f"layers of a network that calls torch's {operator.__name__} cannot be seen, for it runs compiled "
            "alone: write it as a loop in Python"
        ) from error
