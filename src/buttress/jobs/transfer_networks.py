"""The networks of a comparison, opened again to try one's adversarial examples on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from buttress.attacks import Attack
from buttress.audits import subject
from buttress.data.dataset import Dataset, Split
from buttress.engine.machine import Accelerator, Machine, placed, told
from buttress.engine.threat_resolution import in_box
from buttress.errors import UserError
from buttress.jobs.audit import CRAFTED
from buttress.jobs.estimate import estimate_attacks
from buttress.jobs.no_effect import refuse_twice, refuse_unused_threat
from buttress.jobs.questions import usual_attacks
from buttress.jobs.reopened import reopened
from buttress.jobs.settings import Network, Reporter, Source, open_network
from buttress.jobs.surrogates import with_surrogates
from buttress.jobs.threat_resolution import job_threat
from buttress.jobs.transfer import Candidate, check_comparable
from buttress.tasks import Task, check_task, task_of
from buttress.threat import Threat

_INPUTS, _BATCH = 1000, 256  # as many as an audit takes


@dataclass(frozen=True)
class Place:
    """Where a network of the comparison is.

    Attributes:
        folder: of its audit (or the findings.json of that), or of its run.
        about: the facts of the audit; None for a run that is given itself.
    """

    folder: Path
    about: Mapping[str, Any] | None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the audit recorded of its settings; empty for a run."""
        settings = (self.about or {}).get("settings")
        return settings if isinstance(settings, Mapping) else {}

    @property
    def seed(self) -> int:
        """Of the audit's inputs and attacks; 0 for a run."""
        return self._whole((self.about or {}).get("seed", 0), "seed", 0)

    @property
    def inputs(self) -> int:
        """As many as the audit had; 1000 for a run."""
        return self._whole(self.settings.get("inputs", _INPUTS), "inputs", 1)

    def threat(self, facts: Mapping[str, Any]) -> Threat | None:
        """That of the audit, or of the run with these facts; None for one that was trained without."""
        own = self.settings.get("threat") or facts.get("threat")
        try:
            return Threat(**own) if own else None
        except (TypeError, ValueError) as error:
            raise self._damaged("threat", own) from error

    def _whole(self, value: object, name: str, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._damaged(name, value)
        return value

    def _damaged(self, name: str, value: object) -> UserError:
        return UserError(f"{self.folder} records the {name} {value!r}, which is none: audit the network again")

    def arguments(self) -> tuple[str, Network, Source]:
        """What its network is opened with.

        Raises:
            UserError: for a report that does not say it.
        """
        if self.about is None:
            return str(self.folder), Network(), Source()
        record = self.settings.get("opened as")
        if not isinstance(record, Mapping):
            raise UserError(
                f"{self.folder} does not say how its network is opened: give the folder of the network's run, or audit "
                "it again"
            )
        return reopened(record)


def open_candidates(
    places: Mapping[str, Place],
    attacks: Sequence[Attack] | None,
    *,
    threat: Threat | None,
    inputs: int | None,
    accelerator: Accelerator,
    reporter: Reporter,
) -> tuple[dict[str, Candidate], list[Attack]]:
    """The networks with their inputs, and the attacks with their threats.

    Args:
        places: by name.
        attacks: as they were given; those of a usual audit by default.
        threat: for attacks without one; by default that of the audits, and of the runs that were trained with one.
        inputs: of each; as many as in its audit by default, of a run as in the first audit.
        accelerator: on what to compute.
        reporter: is told on what.

    Raises:
        UserError: for what cannot be opened, or tried on another.
    """
    chosen = attacks or usual_attacks()
    refuse_twice("attacks", chosen)
    refuse_unused_threat(chosen, threat)
    device = Machine(accelerator=accelerator).device
    reporter.line(told(device))
    audited = next((place for place in places.values() if place.about is not None), None)
    found, threats = dict[str, Candidate](), dict[str, Threat]()
    for name, place in places.items():
        known = (place if place.about is not None else audited) or place
        model, dataset, facts = open_network(*place.arguments(), known.seed, trained=True)
        if (own := place.threat(facts)) is not None:
            threats[name] = own
        about: dict[str, Any] = {"classes": dataset.classes, "task": task_of(facts), "seed": known.seed}
        about |= {"limit": inputs or known.inputs, "precision": "auto", "batch_size": _BATCH}
        seen = subject(placed(model, device), dataset.test, **about)
        folder = place.folder if place.folder.is_dir() else place.folder.parent
        found[name] = Candidate(seen, folder / CRAFTED)
    check_comparable({name: one.subject for name, one in found.items()})
    return found, _resolved(chosen, threat, threats, dataset, task_of(facts), device)


def estimate_transfer(networks: Mapping[str, Candidate], attacks: Sequence[Attack], reporter: Reporter) -> None:
    """Say of each network about how long crafting takes, where its examples were not kept."""
    for name, one in networks.items():
        missing = [attack for attack in attacks if not one.has_kept(attack)]
        seen, text = one.subject, "all examples were kept"
        if missing:
            split = Split(seen.x, seen.y, seen.ids)
            text = estimate_attacks(seen.model, split, missing, _BATCH, seen.task)
        reporter.line(f"{name}: {text}")


def _resolved(
    attacks: Sequence[Attack],
    threat: Threat | None,
    threats: Mapping[str, Threat],
    dataset: Dataset,
    task: Task,
    device: torch.device,
) -> list[Attack]:
    """The attacks within one threat for all networks.

    Raises:
        UserError: where the networks are known under several, and none was given.
    """
    known = {name: in_box(one, dataset.box) for name, one in threats.items()}
    if threat is None and any(one != other for one, other in pairwise(known.values())):
        texts = ", ".join(f"{name} {one.text()}" for name, one in known.items())
        raise UserError(f"the networks are known under different threats ({texts}): give one for all (--threat.eps)")
    against = job_threat(threat, dataset, next((one.facts() for one in known.values()), None))
    chosen = with_surrogates(against.resolve(list(attacks)), dataset, device, task)
    check_task(chosen, task)
    return chosen
