"""Registered names: one registry per role, filled by discovery.

A member registers itself by decorator in a file of its role's folder; the folder is imported when the first name is
asked for. A user's own members come by entry points or as ``package.module:Thing`` or ``path/to/file.py:Thing``.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from buttress.errors import UserError

T = TypeVar("T", bound=Callable[..., Any])


_LISTED = 40  # names in one line


def close_names(name: str, known: Sequence[str], most: int = 1) -> list[str]:
    """Those that are nearly spelled so, in letters of either case, the nearest first."""
    exact = difflib.get_close_matches(name, known, n=len(known) or 1, cutoff=0)
    spelled = {one.casefold(): one for one in reversed(exact)}  # of those that differ in case alone the nearest
    return [spelled[one] for one in difflib.get_close_matches(name.casefold(), spelled, n=most, cutoff=0.5)]


def nearest(name: object, known: list[str]) -> str:
    """The end of an error line: the nearest known name, or all of them, or the first where there are very many."""
    close = close_names(str(name), known)
    more = f" and {len(known) - _LISTED} more" if len(known) > 1.5 * _LISTED else ""
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known[:_LISTED] if more else known)}{more}"


def import_thing(path: str) -> Any:
    """Import ``package.module:Thing`` or ``path/to/file.py:Thing``; the working directory is searched too.

    Raises:
        UserError: when the module or the thing in it cannot be found.
    """
    where, _, what = path.partition(":")
    if where.endswith(".py"):
        file = Path(where).resolve()
        if not file.is_file():
            raise UserError(f"{path!r}: there is no file {where}")
        name = f"buttress_user_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        module = sys.modules[name]
    else:
        here = str(Path.cwd())
        sys.path.insert(0, here)
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not where.startswith(error.name):
                raise
            raise UserError(f"{path!r}: there is no module {error.name!r} on the path or in {Path.cwd()}") from None
        finally:
            sys.path.remove(here)
    try:
        return getattr(module, what)
    except AttributeError:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise UserError(f"{path!r}: {where} has no {what!r}; {nearest(what, names)}") from None


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
            self._members.setdefault(point.name, point.load())

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
            return import_thing(name)
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
        where = thing.__module__
        if where.startswith("buttress_user_"):
            where = sys.modules[where].__file__ or where
        return f"{where}:{thing.__qualname__}"

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

ROLES = {
    "attacks": attack,
    "defences": defence,
    "models": model,
    "audits": audit,
    "datasets": dataset,
    "monitors": monitor,
    "tasks": task,
}
