"""Registered names: one registry per role, filled by discovery.

A member registers itself by decorator in a file of its role's folder; the folder is imported when the first name is
asked for. A user's own members come by entry points or as ``package.module:Thing`` or ``path/to/file.py:Thing``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from buttress.errors import UserError
from buttress.near_names import close_names, nearest
from buttress.user_modules import import_thing, place_of, remember_installed
from buttress.users_returns import check_returns

T = TypeVar("T", bound=Callable[..., Any])


__all__ = ["ROLES", "Registry", "close_names", "import_thing", "nearest"]


class Registry:
    """The members of one role, by name.

    Args:
        role: the role's singular name, used in error lines.
        package: the package whose files register members when imported.
    """

    def __init__(self, role: str, package: str) -> None:
        self.role = role
        self.package = package
        self._members: dict[str, Callable[..., Any]] = {}
        self._discovered = False

    def __call__(self, name: str) -> Callable[[T], T]:
        """Register the decorated class or function under ``name``."""

        def register(member: T) -> T:
            known = self._members.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (member.__module__, member.__qualname__):
                raise ValueError(f"two {self.role}s are called {name!r}: {known.__module__} and {member.__module__}")
            self._members[name] = member
            if isinstance(member, type) and is_dataclass(member):
                # Annotations as texts would be looked up in the files of subclasses, which need not know the names.
                with suppress(NameError):  # a name for type checkers only
                    member.__annotations__ = get_type_hints(member, include_extras=True)
            return member

        return register

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(package.__path__, f"{self.package}."):
            importlib.import_module(module.name)
        for point in entry_points(group=self.package):
            member = point.load()
            remember_installed(sys.modules[member.__module__])
            self._members.setdefault(point.name, member)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._discover()
        return sorted(self._members)

    def get(self, name: str) -> Any:
        """The member registered as ``name``, or imported when the name holds a colon.

        Raises:
            UserError: for an unknown name, with the nearest known one.
        """
        if ":" in name:
            return check_returns(import_thing(name))
        self._discover()
        if name not in self._members:
            raise UserError(f"there is no {self.role} {name!r}; {nearest(name, self.names())}")
        return self._members[name]

    def name_of(self, member: object) -> str:
        """The name under which a member (a class, a function or a class's instance) can be asked for again."""
        self._discover()
        thing: Any = member if inspect.isclass(member) or inspect.isroutine(member) else type(member)
        for name, known in self._members.items():
            if known is thing:
                return name
        return f"{place_of(thing)}:{thing.__qualname__}"

    def attribute(self, module: str, name: str) -> Any:
        """For a role package's ``__getattr__``: a registered class by its class name, so ``attacks.PGD`` works."""
        if not name.startswith("_"):
            self._discover()
            for member in self._members.values():
                if member.__name__ == name:
                    return member
        raise AttributeError(f"module {module!r} has no attribute {name!r}")


attack = Registry("attack", "buttress.attacks")
model = Registry("model", "buttress.models")
dataset = Registry("dataset", "buttress.data")
defence = Registry("defence", "buttress.defences")
audit = Registry("audit", "buttress.audits")
monitor = Registry("monitor", "buttress.training.monitors")
task = Registry("task", "buttress.tasks")
verifier = Registry("verifier", "buttress.certificates")

ROLES = {
    "attacks": attack,
    "defences": defence,
    "models": model,
    "audits": audit,
    "datasets": dataset,
    "monitors": monitor,
    "tasks": task,
    "verifiers": verifier,
}
