"""Layer profiles of networks side by side: by each measure, and in words where the most vulnerable layer went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from buttress.audits import Finding
from buttress.audits.base.rank_intervals import may_be_first

Change = Literal["moved", "not shown", "unknown"]

_TITLE = "Layers side by side"
_LEADING = ("margin", "recovery", "centred", "relative_error")  # the first of the measures
_WORDS = {"recovery": "patching", "relative_error": "relative displacement", "centred": "centred displacement"}


@dataclass(frozen=True)
class Measured:
    """One network's layers by one measure.

    Attributes:
        layers: names, in order of execution.
        values: of each layer; None where it has none.
        places: the place of each, most vulnerable first, with its interval: "rank", "low" and "high".
    """

    layers: Sequence[str]
    values: Sequence[float | None]
    places: Mapping[str, Sequence[int | None]]

    @property
    def first(self) -> list[str]:
        """The layers that may be the most vulnerable; none where the inputs tell no layer from the others."""
        first = may_be_first({name: list(self.places[name]) for name in ("rank", "low", "high")})
        ranked = sum(rank is not None for rank in self.places["rank"])
        return [] if len(first) == ranked else [self.layers[k] for k in first]

    def depth(self, layer: str) -> float:
        """Where a layer is: 0 for the first that was measured, 1 for the last."""
        return depths(self.layers)[self.layers.index(layer)]


def depths(layers: Sequence[str]) -> list[float]:
    """(L,) relative depth of each layer among those measured, from 0 to 1, by which networks share an axis."""
    return [k / max(1, len(layers) - 1) for k in range(len(layers))]


@dataclass(frozen=True)
class Profile:
    """A network's finding on layers, which has places.

    Attributes:
        name: the network's.
        data: of the finding.
    """

    name: str
    data: Mapping[str, Any]

    @cached_property
    def measured(self) -> dict[str, Measured]:
        """What the layers are ranked by, under the first perturbation, where its values are there, too."""
        data = self.data
        values: dict[str, Sequence[float | None]] = {data["measure"]: data["mean"][0]}
        for name in _LEADING:
            if isinstance(data.get(name), Mapping):  # a second measure of displacement
                values[name] = data[name]["mean"][0]
        values |= {name: data[name] for name in ("tolerance", "margin") if data.get(name)}
        patched = data.get("patching") or {}
        values |= {name: patched[name] for name in ("recovery", "few") if patched.get(name)}
        by = data["ranks"]["by"]
        order = dict.fromkeys([*(name for name in _LEADING if name in values), *values])
        return {name: Measured(data["layers"], values[name], by[name]) for name in order if name in by}


def with_layers_compared(networks: Mapping[str, Sequence[Finding]]) -> dict[str, list[Finding]]:
    """The findings by network, a comparison of the layers with the first network's behind each profile of layers.

    As they are where fewer than two networks have a profile. A network with several profiles is compared by its first.
    """
    profiles = {
        name: next((f for f in own if f.kind == "layers" and f.data.get("layers") and f.data.get("ranks")), None)
        for name, own in networks.items()
    }
    known = [Profile(name, finding.data) for name, finding in profiles.items() if finding is not None]
    compared = {own.name: _compared(own, known[0]) for own in known} if len(known) > 1 else {}
    found = {name: list[Finding]() for name in networks}
    for name, findings in networks.items():
        for finding in findings:
            found[name].append(finding)
            if finding is profiles[name] and name in compared:
                found[name].append(compared[name])
    return found


def _compared(own: Profile, reference: Profile) -> Finding:
    layers = own.data["layers"]
    alike = list(layers) == list(reference.data["layers"])
    common = [name for name in own.measured if name in reference.measured and own is not reference]
    moves = {name: _move(own.measured[name], reference.measured[name], alike) for name in common}
    content = {
        "reference": reference.name,
        "layers": layers,
        "depth": depths(layers),
        "same_layers": alike,
        "perturbation": next(iter(own.data["perturbations"]), None),
        "by": {
            name: {"values": list(one.values), **{part: list(one.places[part]) for part in ("rank", "low", "high")}}
            for name, one in own.measured.items()
        },
        "moves": moves,
    }
    return Finding("layer-comparison", _TITLE, _verdict(own, reference, moves), "info", content)


def _move(own: Measured, other: Measured, alike: bool) -> dict[str, Any]:
    """Whether the most vulnerable layer is another one, and, layer by layer, whose places' intervals do not overlap.

    Layers are the same by name where both networks have the same ones; else by their depth alone.
    """
    first, before = own.first, other.first
    changed: Change = "unknown"
    if first and before:
        ends = [[one.depth(layer) for layer in names] for one, names in ((own, first), (other, before))]
        apart = min(ends[0]) > max(ends[1]) or max(ends[0]) < min(ends[1])
        changed = "moved" if (not set(first) & set(before) if alike else apart) else "not shown"
    shifted = [k for k in range(len(own.layers)) if alike and _apart(own, other, k)]
    return {"change": changed, "from": before, "to": first, "shifted": [own.layers[k] for k in shifted]}


def _apart(own: Measured, other: Measured, k: int) -> bool:
    ends = [one.places[part][k] for one in (own, other) for part in ("low", "high")]
    if None in ends:
        return False
    low, high, other_low, other_high = (end for end in ends if end is not None)
    return low > other_high or high < other_low


def _verdict(own: Profile, reference: Profile, moves: Mapping[str, Any]) -> str:
    if own is reference:
        return f"The others are set against its {len(own.data['layers'])} layers."
    told = [name for name in dict.fromkeys(("margin", "recovery", own.data["measure"])) if name in moves]
    if not told:
        return f"Its layers and those of {reference.name} are ranked by no common measure."
    sentences = [_move_text(name, own, reference, moves[name]) for name in told]
    if list(own.data["layers"]) != list(reference.data["layers"]):
        sentences.append("The layers are not the same; they are set side by side by depth.")
    for key, what in (("perturbed_by", "by another perturbation"), ("same_inputs", "on other inputs")):
        if own.data.get(key) != reference.data.get(key):
            sentences.append(f"They were looked at {what} than those of {reference.name}, which may be what differs.")
    return " ".join(sentences)


def _move_text(measure: str, own: Profile, reference: Profile, move: Mapping[str, Any]) -> str:
    by = _WORDS.get(measure, measure)
    if move["change"] == "unknown":
        sides = ((reference.name, move["from"]), (own.name, move["to"]))
        return f"By {by} no layer of {' and none of '.join(name for name, first in sides if not first)} stands out."
    before, after = _listed(reference, move["from"], own), _listed(own, move["to"], reference)
    if move["change"] == "moved":
        return f"By {by} the most vulnerable layer moved from {before} in {reference.name} to {after}."
    where = f"{before} in {reference.name}, {after} here" if before != after else f"{after} in both"
    return f"By {by} the most vulnerable layer is not shown to have moved: {where}."


def _listed(one: Profile, names: Sequence[str], other: Profile) -> str:
    """The layers that may be meant; where the other network has others, with their depth: "relu#1 (depth 25%)"."""
    layers = list(one.data["layers"])
    depth = dict(zip(layers, depths(layers), strict=True))
    alike = layers == list(other.data["layers"])
    return " or ".join(name if alike else f"{name} (depth {depth[name]:.0%})" for name in names)
