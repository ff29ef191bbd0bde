"""What lists, dictionaries and containers of modules hold, for reading the code of a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, eq=False)
class Several:
    """One of several values, inside of a container."""

    values: tuple[Any, ...]


def contents(container: Any) -> Iterator[Any]:
    """The values, or the parts of a module; nothing of what is no container."""
    if isinstance(container, dict):
        yield from dict.values(container)
    elif isinstance(container, nn.Module):
        yield from (part for part in container._modules.values() if part is not None)
    elif isinstance(container, list | tuple):
        yield from container


def all_contents(containers: Iterable[Any]) -> Iterator[Any]:
    """The values of several containers."""
    for container in containers:
        yield from contents(container)


def items_at(container: Any, index: Any) -> Iterable[Any]:
    """The item at an index that is known, or else any."""
    values = list(contents(container))
    if isinstance(index, slice):
        return (values[index],)
    if isinstance(index, str) and isinstance(container, dict | nn.Module):
        held = container._modules if isinstance(container, nn.Module) else container
        return (held[index],) if index in held else ()
    if isinstance(index, int) and not isinstance(container, dict):
        return values[index : index + 1 or None]
    return values


def expanded(values: Iterable[Any]) -> tuple[Any, ...]:
    """Every meaning once."""
    found: dict[int, Any] = {}
    for value in values:
        for one in value.values if isinstance(value, Several) else (value,):
            found.setdefault(id(one), one)
    return tuple(found.values())


def flattened(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and what lists and dictionaries of them have."""
    for value in values:
        if isinstance(value, list | tuple | dict):
            yield from contents(value)
        else:
            yield value
