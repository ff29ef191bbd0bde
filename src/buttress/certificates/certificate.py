"""What is shown of each input."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Certificate:
    """What a verifier has shown of each input within a threat.

    Attributes:
        verified: (N,) bool: no allowed perturbation makes the network wrong.
        falsified: (N,) bool: one does, that in ``x_adv``. Neither of both: unknown.
        margin: (N,) a lower bound, over all allowed perturbations, of the true class's logit less the largest other
            one, less what rounding may come to; positive where verified. Of smoothing: the radius less eps.
        method: the verifier's name.
        sound: whether what is verified holds with certainty, up to rounding in the network itself; else with
            ``probability``.
        seconds: that it took for all inputs.
        x_adv: (N, ...) adversarial examples of what is falsified; the inputs themselves elsewhere.
        probability: with which each input's statement holds.
    """

    verified: Tensor
    falsified: Tensor
    margin: Tensor
    method: str
    sound: bool
    seconds: float
    x_adv: Tensor
    probability: float = 1.0

    @property
    def unknown(self) -> Tensor:
        """(N,) bool: neither verified nor falsified."""
        return ~(self.verified | self.falsified)

    def __str__(self) -> str:
        """As in "crown: 80 of 100 verified, 15 falsified, 5 unknown (1.2 s)"."""
        counts = (int(which.sum()) for which in (self.verified, self.falsified, self.unknown))
        verified, falsified, unknown = counts
        return (
            f"{self.method}: {verified} of {len(self.margin)} verified, {falsified} falsified, {unknown} unknown "
            f"({self.seconds:.2g} s)"
        )
