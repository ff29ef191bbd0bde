"""What attacks refuse in their own settings, each with the setting's name, what came and what it may be."""

from __future__ import annotations

import math
from typing import get_args

from buttress.errors import UserError
from buttress.threat import NOT_GIVEN, Norm, Threat


def check_steps(steps: int, restarts: int = 1, step_size: float | None = None) -> None:
    """Refuse counts below 1 and step sizes that are not positive.

    Raises:
        UserError: naming the setting and its value.
    """
    for name, value in (("steps", steps), ("restarts", restarts)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f"{name} must be a whole number; got {value!r}")
        if value < 1:
            raise UserError(f"{name} must be 1 or more; got {value}")
    if step_size is not None and not step_size > 0:
        raise UserError(f"step_size must be positive, in input units; got {step_size}")


def check_counts(**counts: int) -> None:
    """Refuse counts that are no whole numbers of 1 or more.

    Raises:
        UserError: naming the setting and its value.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of 1 or more; got {value!r}")


def check_positive(**values: float) -> None:
    """Refuse settings that are not positive and finite.

    Raises:
        UserError: naming the setting and its value.
    """
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name} must be a positive number; got {value!r}")


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
