"""The threat of a job: the one that the user gave, or the usual one, in the box of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buttress.data.dataset import Dataset
from buttress.engine.threat_resolution import Thing, in_box, resolve_threats, threats_in
from buttress.errors import UserError
from buttress.threat import Threat


@dataclass(frozen=True)
class JobThreat:
    """What a job fills in where an attack, a defence, an audit or a monitor was given no threat.

    Attributes:
        given: by the user for the whole job; None where nothing was given.
        usual: of methods without a default of their own, where nothing was given.
        features: values of one input.
    """

    given: Threat | None
    usual: Threat
    features: int

    @property
    def threat(self) -> Threat:
        """The job's threat."""
        return self.given or self.usual

    def resolve(self, thing: Thing) -> Thing:
        """A copy of an attack, a defence, an audit, a monitor or a list of these with every threat filled in.

        Raises:
            UserError: for an eps that reaches beyond the box, which asks what was meant.
        """
        resolved = resolve_threats(thing, self.given, self.usual)
        for threat in (self.threat, *threats_in(resolved)):
            _ask_about_units(threat, self.features)
        return resolved


def job_threat(threat: Threat | None, dataset: Dataset, trained: Mapping[str, Any] | None = None) -> JobThreat:
    """The threat of a job on these data; ``trained`` is the stored one that a run was trained with.

    The usual eps is 8/255 of the box's width.
    """
    usual = Threat(**trained) if trained else Threat(eps=Threat().eps * Threat(box=dataset.box).unit)
    given = None if threat is None else in_box(threat, dataset.box)
    return JobThreat(given, in_box(usual, dataset.box), math.prod(dataset.shape))


def _ask_about_units(threat: Threat, features: int) -> None:
    """Refuse an eps beyond which nothing is left to allow: nearly always it is in levels of an 8-bit image.

    Raises:
        UserError: asking what was meant, and saying how to have it so.
    """
    width = threat.widest
    across = width * {"linf": 1.0, "l2": math.sqrt(features), "l1": float(features)}[threat.norm]
    if threat.by_feature or not across < threat.eps < math.inf:
        return
    levels = threat.eps == round(threat.eps) and threat.eps / 255 <= across and width <= 2
    share = "/255" if width == 1 else f" * {width:g} / 255"
    meant = f"did you mean {threat.eps:g}{share}?" if levels else "eps is in the units of the inputs."
    wide = "is wider than" if threat.norm == "linf" else f"in {threat.norm} is more than {across:g}, the diagonal of"
    raise UserError(f"eps {threat.eps:g} {wide} {threat.box_text}: {meant} To allow the whole box give eps inf")


def threat_facts(threat: Threat) -> dict[str, Any]:
    """A threat as plain data."""
    return threat.facts()
