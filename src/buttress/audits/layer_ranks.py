"""The places of the layers, most vulnerable first, by everything that is measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from buttress.audits.base.rank_intervals import Statistic, means, medians, ranks
from buttress.layers.measures import MEASURES, ratio
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
    """By name (of `RANKS`), the place of each layer and its interval over the inputs; see `ranks`.

    Large displacements and gains come first, small tolerances and margins, and of patching (on beaten inputs) layers of
    which little has to be put back: by ``recovery``, the ``restored`` share and that of ``few`` units.

    Args:
        profiles: by the audit's measure and by a second one; the first perturbation of each counts.
        searched: tolerance and margin, if they were searched.
        patched: the patching, if there was any.
        seed: of the resampling.
    """
    layers = profiles[0].layers
    found: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for profile in profiles:
        if MEASURES[profile.measure].by_input:  # else there is one number for a batch, and no sample
            found[profile.measure] = profile.layers, ranks(profile.inputs, means(profile.values[0]), seed)
            found[f"gain of {profile.measure}"] = profile.layers, ranks(profile.inputs, _gains(profile), seed)
    if searched is not None:
        right = ~searched.wrong
        for name, values in (("tolerance", searched.rho), ("margin", searched.margin)):
            of_right = ranks(int(right.sum()), medians(values[:, right]), seed, largest_first=False)
            found[name] = searched.layers, of_right
    if patched is not None:
        for name, values in (("recovery", patched.recovery), ("restored", patched.right[:, -1]), ("few", patched.few)):
            found[name] = patched.layers, ranks(patched.beaten, means(values), seed)
    return {
        name: {part: aligned(layers, of, values) for part, values in places.items()}
        for name, (of, places) in found.items()
    }


def _gains(profile: LayerProfile) -> Statistic:
    """Gains as `LayerProfile.gain` has them, of means over samples of the inputs."""
    before = profile.predecessors  # -1 is the input, the last row
    mean = means(torch.cat([profile.values[0], profile.input_change[:1]]))

    def gains(weights: torch.Tensor) -> torch.Tensor:
        of_all = mean(weights)
        return ratio(of_all[:, :-1], of_all[:, before])

    return gains
