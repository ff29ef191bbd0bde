"""What an audit asks of a network at most, to know its time before: attacks, which audits share, and own passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from buttress.attacks import Perturbation
from buttress.engine.oracle import Search
from buttress.engine.pass_count import PassCount


@dataclass(frozen=True)
class Asked:
    """One attack that an audit asks for.

    Attributes:
        attack: the attack, or a noise.
        inputs: how many it is run on; fewer than all of the run are spread evenly over them.
        search: "first" stops an input at its first success; "full" does not.
    """

    attack: Perturbation
    inputs: int
    search: Search = "full"

    @property
    def key(self) -> tuple[str, str, int]:
        """What is equal where one run serves several audits, see `Subject.attacked`."""
        return self.attack.fingerprint(), self.search, self.inputs


@dataclass(frozen=True)
class Work:
    """What an audit does to a network at most.

    Attributes:
        attacks: those that it asks for.
        passes: its own passes of the network, those of all inputs added up. A pass of some of the layers counts as one.
        seconds: of what is no pass, such as bounds, by a trial on a few inputs.
    """

    attacks: tuple[Asked, ...] = ()
    passes: PassCount = field(default_factory=PassCount)
    seconds: float = 0.0


def asked(attacks: Sequence[Perturbation], inputs: int, search: Search = "full") -> tuple[Asked, ...]:
    """Each of these, run on so many inputs."""
    return tuple(Asked(attack, inputs, search) for attack in attacks)
