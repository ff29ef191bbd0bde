"""A threat that nobody gave yet, and the refusal of one that an attack is not defined in."""

from __future__ import annotations

import math
from typing import cast, get_args

from buttress.errors import UserError
from buttress.threat.geometry import Norm
from buttress.threat.threat import Threat

# The default of an attack's field ``threat``: nobody gave one yet. It is filled in before the attack runs (see
# `Attack.within`), so that the mathematics in `perturb` may count on a threat, as the type says.
NOT_GIVEN = cast(Threat, None)


def check_threat(name: str, threat: Threat, *known: Norm, finite: bool = False) -> None:
    """Refuse a threat without any limit, and a norm that the attack ``name`` is not defined in.

    Args:
        name: of the attack, for the message.
        threat: the attack's; one that is not given yet is checked once it is.
        known: the norms it is defined in; all unless given.
        finite: whether it needs ends of what is allowed: a finite eps, or a box without infinite ends.

    Raises:
        UserError: saying what came and what would do.
    """
    if threat is NOT_GIVEN:
        return
    if math.isinf(threat.eps) and (threat.box is None or (finite and not threat.bounded)):
        kind = "box with finite ends" if finite else "box"
        raise UserError(f"{name} needs a finite eps or a {kind}; got eps inf and {threat.box_text}")
    if threat.norm not in (known or get_args(Norm)):
        raise UserError(f"{name} is defined in {' and '.join(known)}; got {threat.norm}")
