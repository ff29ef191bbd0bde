"""The places of the layers, most vulnerable first, by everything that is measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from buttress.audits.base.median_places import median_places
from buttress.audits.base.rank_intervals import Places
from buttress.audits.base.ranking import ranking
from buttress.audits.layer_verdict import growth
from buttress.layers.measures import MEASURES
from buttress.layers.patching import LayerPatching
from buttress.layers.profile import LayerProfile
from buttress.layers.tolerance import LayerTolerance

T = TypeVar("T")

_OF_PROFILES = [name for name, measure in MEASURES.items() if measure.by_input]
# What layers may be ranked by; an audit has those that it measured.
RANKS = (
    *(*_OF_PROFILES, *(f"gain of {name}" for name in _OF_PROFILES)),
    *("tolerance", "margin", "recovery", "restored", "few"),
)


def aligned(layers: Sequence[str], names: Sequence[str], values: Sequence[T]) -> list[T | None]:
    """The values of ``names`` in the order of ``layers``, None for those that have none."""
    known = dict(zip(names, values, strict=True))
    return [known.get(layer) for layer in layers]


def layer_ranks(
    profiles: tuple[LayerProfile, LayerProfile],
    searched: LayerTolerance | None,
    patched: LayerPatching | None,
    seed: int,
) -> dict[str, Any]:
    """By name (of `RANKS`), the place of each layer and its interval over the inputs; see `places`.

    Large displacements and gains come first, small tolerances and margins, and of patching (on beaten inputs) layers of
    which little has to be put back: by ``recovery``, the ``restored`` share and that of ``few`` units.

    Args:
        profiles: by the audit's measure and by a second one; the first perturbation of each counts.
        searched: tolerance and margin, if they were searched.
        patched: the patching, if there was any.
        seed: of the random signs.
    """
    layers = profiles[0].layers
    found: dict[str, tuple[list[str], Places]] = {}
    for profile in profiles:
        if MEASURES[profile.measure].by_input:  # else there is one number for a batch, and no sample
            found[profile.measure] = profile.layers, ranking(profile.values[0], seed).places()
            found[f"gain of {profile.measure}"] = profile.layers, growth(profile, seed).places()
    if searched is not None:
        right = ~searched.wrong
        for name, values in (("tolerance", searched.rho), ("margin", searched.margin)):
            found[name] = searched.layers, median_places(-values[:, right], seed)
    if patched is not None:
        for name, values in (("recovery", patched.recovery), ("restored", patched.right[:, -1]), ("few", patched.few)):
            found[name] = patched.layers, ranking(values, seed).places()
    return {
        name: {part: aligned(layers, of, values) for part, values in places.items()}
        for name, (of, places) in found.items()
    }
