"""What has been read of a network's code, kept from one `capture` to the next."""

from __future__ import annotations

from collections.abc import Iterable
from operator import is_
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

from buttress.errors import UserError
from buttress.layers.places import Places

_LEVELS = 3  # of lists in lists, dictionaries and plain objects
_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}  # what torch keeps in every module
_PLAIN = (str, int, bool, type(None))  # hold nothing
_NO_NAME = Tensor | float  # what no name of a layer can follow from


class NetworkCode:
    """Keeps what was read of a network's code, as long as the network is made of the same parts.

    A training and an analysis have one each, and give it to everything that looks at layers meanwhile. Names and values
    are the same without; the code is then read anew each time. What was read is dropped when modules, functions or
    settings of the network are others than before, or the network is another one. Variables outside of the network,
    as globals that its code names, are taken to stay what they are meanwhile.

    A copy, pickled ones too, has read nothing.
    """

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._places = Places()

    def __reduce__(self) -> tuple[type[NetworkCode], tuple[()]]:
        return NetworkCode, ()

    def places(self, network: nn.Module) -> Places:
        """Where the network's code calls what, as far as that has been read."""
        parts = _parts(network)
        if len(parts) != len(self._parts) or not all(map(is_, parts, self._parts)):
            self._parts, self._places = parts, Places()
        return self._places


def given_or_new(code: object) -> NetworkCode:
    """What has been read; nothing yet, where None is given.

    Raises:
        UserError: for anything else.
    """
    if code is not None and not isinstance(code, NetworkCode):
        raise UserError(f"code must be a NetworkCode or None; got {code!r}")
    return code or NetworkCode()


def _parts(network: nn.Module) -> list[Any]:
    """Everything that names of layers may follow from: modules, their names, and what they and their classes hold."""
    found: list[Any] = []
    modules: dict[nn.Module, None] = {}
    waiting: list[tuple[Any, int]] = [(network, _LEVELS)]
    while waiting:
        value, levels = waiting.pop()
        if isinstance(value, nn.Module):
            if value in modules:
                continue
            modules[value], levels = None, _LEVELS
            held = [part for item in value._modules.items() for part in item]
            held += [part for item in vars(value).items() if item[0] not in _OF_TORCH for part in item]
        else:
            held = [*_held(value)] if levels else []
        for part in held:
            if type(part) in _PLAIN:
                found.append(part)
            elif not isinstance(part, _NO_NAME):
                found.append(part)
                waiting.append((part, levels - 1))
    for kind in {kind: None for module in modules for kind in type(module).__mro__}:
        if not kind.__module__.startswith(("torch.", "builtins")):
            found += (kind, *vars(kind).values())
    return found


def _held(value: Any) -> Iterable[Any]:
    """What a value holds, with keys and names: items, and attributes of plain objects."""
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if not isinstance(value, dict):
        if isinstance(value, type | FunctionType | ModuleType) or not type(value).__dictoffset__:
            return ()
        value = vars(value)
    return (*value, *value.values())
