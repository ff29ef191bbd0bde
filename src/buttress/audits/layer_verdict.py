"""What a layer profile shows of this network: which layers are displaced most, and where the perturbation grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from buttress.audits.base.rank_intervals import FEWEST, Places, may_be_first
from buttress.audits.base.ranking import Ranking, joined, ranking
from buttress.layers.measures import MEASURES, ratio
from buttress.layers.profile import LayerProfile

RELATIVE = ("relative_error", "relative_error_batch", "centred")  # measures whose unit is the layer's own size

_RECOVERY = " of the beaten inputs are right again, on average over how much of the clean value is put back"
_GROWN = 1 + 1e-6  # a gain beyond the rounding of float32


@dataclass(frozen=True)
class Displaced:
    """The layers that are displaced most under the first perturbation of a profile.

    Attributes:
        eta: the cut-off of algorithm 1, in standard deviations.
        passed_over: a cut-off that was asked for and names no layer, so that another one is taken; None where there is
            none.
        names: what algorithm 1 names at it, and then the layers that cannot be told from the last of these.
        tied: the layers that may be the most displaced one, that one first.
        ranking: of the mean displacements; None for a measure that has one number for a batch, which is no sample of
            inputs: nothing is tied then, except by inputs so few that nothing can be told of any measure.
    """

    eta: float
    names: list[str]
    tied: list[str]
    ranking: Ranking | None
    passed_over: float | None = None

    @property
    def remark(self) -> str:
        """What became of the cut-off that was asked for, in a sentence, where another one is taken."""
        if self.passed_over is None:
            return ""
        return f"No layer passes eta {self.passed_over:g}: the cut-off at the widest gap, {self.eta:.3g}, is taken."

    def facts(self, layers: Sequence[str]) -> dict[str, Any]:
        """As plain data."""
        intervals = {} if self.ranking is None else self.ranking.facts(layers)
        return {**intervals, "names": self.names, "first": self.tied}


def displaced(profile: LayerProfile, eta: float | None, seed: int = 0) -> Displaced:
    """Name the layers that are displaced most: by algorithm 1, and all that the inputs cannot tell from these.

    Args:
        profile: of which the first perturbation counts.
        eta: the cut-off; at the widest gap unless given, or where it names no layer.
        seed: of the ranking's draws.
    """
    names = profile.mvl(eta) if eta is not None else []
    passed_over = None
    if eta is None or not names:
        passed_over, eta = eta, profile.suggest_eta()
        names = profile.mvl(eta)
    if profile.measure in MEASURES and not MEASURES[profile.measure].by_input:
        return Displaced(eta, names, names[:1] if profile.inputs >= FEWEST else profile.layers, None, passed_over)
    ranked = ranking(profile.values[0], seed)
    tied = [profile.layers[k] for k in ranked.tied()]
    if names:
        lowest = profile.layers.index(names[-1])
        names = [*names, *(n for k in ranked.tied(lowest) if (n := profile.layers[k]) not in names)]
    return Displaced(eta, names, tied, ranked, passed_over)


def growth(profile: LayerProfile, seed: int) -> Ranking:
    """Rank the layers by their gain under the first perturbation; see `LayerProfile.gain`.

    How far a layer is displaced hangs on all layers before it; its gain is what it does itself.
    """
    before, values = profile.predecessors, torch.cat([profile.values[0], profile.input_change[:1]])
    return ranking(values, seed, lambda means: ratio(means[:, :-1], means[:, before]))  # -1 is the input, the last row


def verdict(
    profile: LayerProfile,
    found: Displaced,
    centred: Sequence[str],
    grown: Ranking,
    data: Mapping[str, Any],
    attack: str,
) -> str:
    """The sentences; each is made only where it says something of this network.

    Args:
        profile: by the audit's own measure.
        found: its most displaced layers.
        centred: the layers that the centred measure has a number of, which may be fewer.
        grown: their gains by it.
        data: of the finding: places of the layers by all measures, margins and what patching restores.
        attack: what displaced the layers, by its label.
    """
    layers, by = profile.layers, data["ranks"]["by"]
    margins = [f"{value:.3g}" if value is not None else "infinite" for value in data.get("margin") or ()]
    recovery = (data.get("patching") or {}).get("recovery") or ()
    shares = [f"{value:.0%}" if value is not None else "" for value in recovery]
    parts = [
        _leading_text(layers, by.get("margin"), "margin", margins),
        _leading_text(layers, by.get("recovery"), "patching", shares, _RECOVERY),
        _part_text(layers, data.get("looked_closer")),
        "No input is beaten, so patching shows nothing." if data.get("patching_inputs") == 0 else "",
        _displaced_text(profile, found, attack),
        found.remark,
        _growth_text(centred, grown),
        _left_out_text(profile, data),
        missed_text(profile),
    ]
    return " ".join(part for part in parts if part)


def missed_text(profile: LayerProfile) -> str:
    """What may be a layer of the network but was not seen as one, in a sentence."""
    return (
        f"Perhaps layers, but written by hand and not seen as such: {joined(profile.missed)}." if profile.missed else ""
    )


def _left_out_text(profile: LayerProfile, data: Mapping[str, Any]) -> str:
    """Which layers the figures do not speak of, and why; a reason is given once."""
    by_figure = {
        "Not measured": profile.left_out,
        "Without a margin": data.get("not_searched") or {},
        "Not patched": (data.get("patching") or {}).get("left_out") or {},
    }
    sentences, told = [], set[str]()
    for what, left_out in by_figure.items():
        reasons = [f"{name}, which {reason}" for name, reason in left_out.items()]
        if new := [text for text in reasons if text not in told]:
            sentences.append(f"{what}: {joined(new)}.")
        told.update(reasons)
    return " ".join(sentences)


def _part_text(layers: Sequence[str], part: Sequence[str] | None) -> str:
    """Of how many layers margin and patching speak, where it is not all."""
    if part is None:
        return ""
    return f"Margin and patching are of {len(part)} of {len(layers)} layers, half of them the most displaced."


def _displaced_text(profile: LayerProfile, found: Displaced, attack: str) -> str:
    if not found.tied:
        return f"The measure {profile.measure} is defined at no layer of {profile.inputs} input(s) under {attack}."
    relative, means = profile.measure in RELATIVE, profile.mean[0].tolist()
    sizes = [f"{mean:.1%}" if relative else f"{mean:.3g}" for mean in means]
    size = dict(zip(profile.layers, sizes, strict=True))
    first = found.tied[0]
    alone = f"is displaced by {size[first]} of its own size" if relative else f"has {profile.measure} {size[first]}"
    if len(profile.layers) == 1:
        return f"The only layer, {first}, {alone} under {attack}."
    unit = "of their own size" if relative else profile.measure
    alike = f"{joined(found.tied)} cannot be told apart ({joined([size[name] for name in found.tied])} {unit})"
    if not found.names or len(found.tied) == len(profile.layers):
        reason = alike if len(found.tied) > 1 else "all are displaced alike"
        return f"No layer is displaced more than others under {attack}: {reason}."
    named = f"Most displaced under {attack}: "
    if len(found.tied) == 1:
        return f"{named}{', '.join(found.names)} ({first} {alone})."
    return f"{named}{alike}." if len(found.names) == len(found.tied) else f"{named}{', '.join(found.names)}; {alike}."


def _growth_text(layers: Sequence[str], grown: Ranking) -> str:
    """Where the perturbation grows; of a single layer there is nothing to set it against."""
    if len(layers) < 2 or not grown.order:
        return ""
    top, tied = grown.order[0], grown.tied()
    low, high, factor = (float(values[top]) for values in (grown.low, grown.high, grown.values))
    interval = "from one input" if math.isnan(low) else f"{low:.3g} to {high:.3g}"
    between, size = f"{factor:.3g} ({interval})", "its centred size is multiplied by"
    if not low > _GROWN:
        return f"The perturbation is not shown to grow at any layer: {size} {between} at most."
    if len(tied) == 1:
        return f"The perturbation grows most at {layers[top]}: {size} {between} there."
    names, factors = joined([layers[k] for k in tied]), joined([f"{float(grown.values[k]):.3g}" for k in tied])
    return f"The perturbation grows most at {names}, which cannot be told apart: {size} {factors}."


def _leading_text(
    layers: Sequence[str], places: Places | None, by: str, figures: Sequence[str], meaning: str = ""
) -> str:
    """Which layers come first by one measure, with all that the inputs do not show to come later.

    Args:
        layers: their names.
        places: by the measure; none where it was not asked for.
        by: the measure's name.
        figures: texts of it, layer by layer.
        meaning: what the figures are, to follow them.
    """
    ranked = sum(rank is not None for rank in places["rank"]) if places is not None else 0
    if places is None or ranked < 2:
        return ""
    first = may_be_first(places)
    if len(first) == ranked:
        return f"By {by} no layer stands out."
    names, values = joined([layers[k] for k in first]), joined([figures[k] for k in first]) + meaning
    if len(first) == 1:
        return f"By {by} {names} matters most ({values})."
    return f"By {by} {names} matter most, which cannot be told apart ({values})."
