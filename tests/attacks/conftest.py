"""Every registered attack and noise, small and cheap."""

import dataclasses

import pytest

from buttress import registry
from buttress.attacks import PGD
from buttress.errors import UserError
from buttress.threat import Threat

_CHEAP = {"steps": 3, "queries": 6, "draws": 2, "search_steps": 2, "samples": 2, "population": 4, "targets": 2}
_THREATS = [Threat(norm=norm, eps=eps) for norm in ("linf", "l2", "l1") for eps in (0.3, float("inf"))]


@pytest.fixture(scope="session")
def member():
    """(name, surrogate, **settings) -> the attack or noise of this name under the first of threats that it knows.

    ``inner`` makes the attack inside another from the threat.
    """

    def make(name, surrogate=None, threats=_THREATS, inner=lambda threat: PGD(threat=threat, steps=3), **wanted):
        kind = registry.attack.get(name)
        known = {field.name for field in dataclasses.fields(kind)}
        for threat in threats:
            settings = {"threat": threat, "box": threat.box, "surrogate": surrogate, **_CHEAP, **wanted}
            if "attack" in known:
                settings["attack"] = inner(threat)
            try:
                return kind(**{key: value for key, value in settings.items() if key in known})
            except UserError as reason:
                refusal = reason
        raise refusal

    return make
