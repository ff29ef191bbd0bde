"""How long a verifier takes for an input, by two that it is tried on; for what audits say of their work."""

from __future__ import annotations

import time

from buttress.audits.base.subject import Subject
from buttress.certificates import Verifier, certify
from buttress.threat import Threat

_TRIED = 2


def verifying_seconds(subject: Subject, threat: Threat, method: str | Verifier) -> float:
    """Seconds for an input.

    Raises:
        UserError: for a network that the verifier cannot bound.
    """
    few, start = subject.subset(_TRIED), time.perf_counter()
    certify(few.model, few.x, few.y, threat=threat, method=method, task=few.task, seed=few.seed, ids=few.ids)
    return (time.perf_counter() - start) / len(few.y)
