"""The check of a threat that attacks share."""

from __future__ import annotations

import math
from typing import get_args

from buttress.errors import UserError
from buttress.threat import NOT_GIVEN, Norm, Threat


def check_threat(name: str, threat: Threat, *known: Norm) -> None:
    """Refuse a threat without any limit, and a norm that the attack ``name`` is not defined in.

    Args:
        name: of the attack, for the message.
        threat: the attack's; one that is not given yet is checked once it is.
        known: the norms it is defined in; all unless given.

    Raises:
        UserError: saying what came and what would do.
    """
    if threat is NOT_GIVEN:
        return
    if math.isinf(threat.eps) and threat.box is None:
        raise UserError(f"{name} needs a finite eps or a box; got eps inf and no box")
    if threat.norm not in (known or get_args(Norm)):
        raise UserError(f"{name} is defined in {' and '.join(known)}; got {threat.norm}")
