"""Attacks: perturbations inside a threat, and attacks that run another one.

Annotations are evaluated here: as texts they would be looked up in the files of subclasses, which need not know them.
"""

import logging
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

from buttress.engine.perturbation import Perturbation
from buttress.engine.threat_resolution import default_threat, in_box, resolved_settings
from buttress.errors import UserError
from buttress.registry import attack as registered_attacks
from buttress.threat import NOT_GIVEN, Threat, budget_text

log = logging.getLogger(__name__)


class Attack(Perturbation):
    """A perturbation that stays inside a threat: whatever `perturb` returns is projected into it.

    Attributes:
        threat: what is allowed. `NOT_GIVEN`, the default of a method's field, is filled in by `within`.
        default_threat: what a threat is that nobody gave.
        by_input: whether the result for an input depends on that input alone, and not on others of its batch.
    """

    threat: Threat
    default_threat: ClassVar[Threat] = Threat()
    by_input: bool = True

    @property
    def inner(self) -> "Attack | None":
        """The attack that this one runs; None for an attack on its own."""
        return None

    @property
    def innermost(self) -> "Attack":
        """Itself; where it runs another attack, the innermost one."""
        return self if self.inner is None else self.inner.innermost

    def with_innermost(self, attack: "Attack") -> "Attack":
        """``attack``; where this one runs another, a copy that runs ``attack`` in the place of the innermost one."""
        return attack

    def varied(self, **changes: Any) -> "Attack":
        """A copy with other settings, which are those of the innermost attack."""
        return self.with_innermost(cast(Attack, replace(cast(Any, self.innermost), **changes)))

    def within(self, threat: Threat | None = None, usual: Threat = Threat()) -> Self:
        """A copy with every threat filled in that was not given; see `Perturbation.within`.

        A threat in the usual norm, of which perhaps the eps alone was given, is not for methods that are not defined in
        that norm: they keep their own, and a line is logged.

        Raises:
            UserError: for an attack of a user's own that has no threat to fill in.
        """
        values, defaults = self.settings(), self.defaults()
        if "threat" not in defaults and self.threat is NOT_GIVEN:
            raise UserError(
                f"{self._name()} is an attack and has no threat: make it a dataclass with the field threat: Threat = "
                "Threat(), or a Perturbation"
            )
        own = values.pop("threat", None)
        changes = resolved_settings(values, defaults, threat, usual)
        if "threat" in defaults:
            legacy = isinstance(defaults["threat"], Threat)  # a user's own method: ``threat: Threat = Threat()``
            default = defaults["threat"] if legacy else self.default_threat
            given = own is not NOT_GIVEN and not (legacy and own == default)
            new = in_box(own, (threat or usual).box) if given else self._resolved(default, threat, usual)
            if new != own:
                changes["threat"] = new
        return cast(Self, replace(cast(Any, self), **changes)) if changes else self

    def label(self) -> str:
        """The attack in a few words: "PGD-20", "PGD-40 x 5", "APGD-100 (dlr, 9 targets)"."""
        settings = self.settings()
        loss, usual = settings.get("loss"), self.defaults().get("loss")
        effort, restarts = settings.get("steps", settings.get("queries")), settings.get("restarts", 1)
        targets = settings.get("targets", 0)
        text = self._name() + (f"-{effort}" if effort is not None else "") + (f" x {restarts}" if restarts > 1 else "")
        special = isinstance(loss, str) and loss not in (usual, "cross_entropy")
        notes = ([str(loss)] if special else []) + ([f"{targets} targets"] if targets else [])
        return text + (f" ({', '.join(notes)})" if notes else "")

    def _name(self) -> str:
        """Acronyms with their hyphens, other names as the class is written; a user's own as it was registered."""
        _, users, name = registered_attacks.name_of(self).rpartition(":")
        if users:
            return name
        return name.upper() if type(self).__name__.isupper() else type(self).__name__

    def _resolved(self, default: Threat, threat: Threat | None, usual: Threat) -> Threat:
        new = default_threat(default, threat, usual)
        if threat is None or threat.norm == default.norm or threat.norm != Threat().norm:
            return new
        try:
            replace(cast(Any, self), threat=new)
        except UserError as reason:
            own = f"{default.norm} eps {budget_text(default.eps)}"
            log.warning("%s keeps its own threat, %s: %s", self.label(), own, reason)
            return in_box(default, threat.box)
        return new

    def _box(self) -> tuple[float, float] | None:
        if self.threat is NOT_GIVEN:  # else nothing would be projected
            name = type(self).__name__
            raise UserError(f"{name} has no threat: give it one, or let its __post_init__ call that of its base class")
        return self.threat.box
