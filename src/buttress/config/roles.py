"""The roles whose members an option can name, known by the types of its annotation."""

from __future__ import annotations

from typing import Any

from buttress import registry
from buttress.attacks import Perturbation
from buttress.audits import Audit
from buttress.certificates import Verifier
from buttress.defences import Defence
from buttress.errors import UserError
from buttress.registry import Registry
from buttress.tasks import Task
from buttress.training.averaging import Average
from buttress.training.monitors import Monitor


class _Averages(Registry):
    """The averages of the weights, by the names of their classes in small letters."""

    def _discover(self) -> None:
        self._members = {kind.__name__.lower(): kind for kind in Average.__subclasses__()}

    def names(self) -> list[str]:
        """The names, in the order in which the classes are written."""
        self._discover()
        return list(self._members)

    def get(self, name: str) -> Any:
        """An average by its name, in small letters or large."""
        if ":" in name or name.lower() in self.names():
            return super().get(name if ":" in name else name.lower())
        hint = registry.nearest(name, self.names())
        raise UserError(f"there is no average {name!r} of the weights; {hint}, or a number, the decay of an EMA")


averages = _Averages("average", "buttress.training.averaging")
_ROLES: tuple[tuple[type, Registry], ...] = (
    (Perturbation, registry.attack),
    (Defence, registry.defence),
    (Audit, registry.audit),
    (Monitor, registry.monitor),
    (Average, averages),
    (Task, registry.task),
    (Verifier, registry.verifier),
)


def role_of(kind: Any) -> Registry | None:
    """The role whose members are instances of ``kind``; None for a type of no role."""
    if not isinstance(kind, type):
        return None
    return next((role for base, role in _ROLES if issubclass(kind, base)), None)
