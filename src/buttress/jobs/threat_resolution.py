"""The threat of a job: the one that the user gave, or the usual one, in the box of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buttress.data.dataset import Dataset
from buttress.engine.threat_resolution import Thing, in_box, resolve_threats
from buttress.threat import Threat


@dataclass(frozen=True)
class JobThreat:
    """What a job fills in where an attack, a defence, an audit or a monitor was given no threat.

    Attributes:
        given: by the user for the whole job; None where nothing was given.
        usual: of methods without a default of their own, where nothing was given.
    """

    given: Threat | None
    usual: Threat

    @property
    def threat(self) -> Threat:
        """The job's threat."""
        return self.given or self.usual

    def resolve(self, thing: Thing) -> Thing:
        """A copy of an attack, a defence, an audit, a monitor or a list of these with every threat filled in."""
        return resolve_threats(thing, self.given, self.usual)


def job_threat(threat: Threat | None, dataset: Dataset, trained: Mapping[str, Any] | None = None) -> JobThreat:
    """The threat of a job on these data; ``trained`` is the stored one that a run was trained with."""
    usual = Threat(**trained) if trained else Threat()
    given = None if threat is None else in_box(threat, dataset.box)
    return JobThreat(given, in_box(usual, dataset.box))


def threat_facts(threat: Threat) -> dict[str, Any]:
    """A threat as plain data."""
    return threat.facts()
