"""Layer profiles of networks side by side: by each measure, and in words where the most vulnerable layer went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from buttress.audits import Finding
from buttress.audits.base.rank_intervals import may_be_first
from buttress.audits.base.ranking import joined

Change = Literal["moved", "not shown", "unknown"]

_TITLE = "Layers side by side"
# What the words speak of: whether a measure foretells where to strengthen a network is another question.
_LEADING = ("margin", "recovery", "centred", "relative_error")
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


def with_layers_compared(networks: Mapping[str, Sequence[Finding]]) -> dict[str, list[Finding]]:
    """The findings by network, a comparison of the layers with the first network's behind each profile of layers.

    As they are where fewer than two networks have a profile. A network with several profiles is compared by its first.
    """
    profiles = {name: own for name, findings in networks.items() if (own := _profile(findings)) is not None}
    if len(profiles) < 2:
        return {name: list(findings) for name, findings in networks.items()}
    reference = next(iter(profiles))
    found = {name: list[Finding]() for name in networks}
    for name, findings in networks.items():
        for finding in findings:
            found[name].append(finding)
            if finding is profiles.get(name):
                found[name].append(_compared(name, finding.data, reference, profiles[reference].data))
    return found


def _profile(findings: Sequence[Finding]) -> Finding | None:
    return next((f for f in findings if f.kind == "layers" and f.data.get("layers") and f.data.get("ranks")), None)


def measured(data: Mapping[str, Any]) -> dict[str, Measured]:
    """What a finding on layers ranks them by, under its first perturbation, with the values where it has them."""
    values: dict[str, Sequence[float | None]] = {data["measure"]: data["mean"][0]}
    for name in _LEADING:
        if isinstance(data.get(name), Mapping):  # a second measure of displacement
            values[name] = data[name]["mean"][0]
    values |= {name: data[name] for name in ("tolerance", "margin") if data.get(name)}
    patched = data.get("patching") or {}
    values |= {name: patched[name] for name in ("recovery", "few") if patched.get(name)}
    by = data["ranks"]["by"]
    return {name: Measured(data["layers"], values[name], by[name]) for name in values if name in by}


def _compared(name: str, data: Mapping[str, Any], reference: str, of_reference: Mapping[str, Any]) -> Finding:
    own, others = measured(data), measured(of_reference)
    alike = list(data["layers"]) == list(of_reference["layers"])
    moves = {
        measure: _move(own[measure], others[measure], alike)
        for measure in own
        if measure in others and name != reference
    }
    content = {
        "reference": reference,
        "layers": data["layers"],
        "depth": depths(data["layers"]),
        "same_layers": alike,
        "perturbation": next(iter(data["perturbations"]), None),
        "by": {
            measure: {"values": list(one.values), **{part: list(one.places[part]) for part in ("rank", "low", "high")}}
            for measure, one in own.items()
        },
        "moves": moves,
    }
    return Finding(
        "layer-comparison", _TITLE, _verdict(name, own, reference, others, content, of_reference, data), "info", content
    )


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


def _verdict(
    name: str,
    own: Mapping[str, Measured],
    reference: str,
    others: Mapping[str, Measured],
    content: Mapping[str, Any],
    of_reference: Mapping[str, Any],
    data: Mapping[str, Any],
) -> str:
    if name == reference:
        return f"The others are set against its {len(content['layers'])} layers."
    sentences = [
        _move_text(_WORDS.get(measure, measure), name, own[measure], reference, others[measure], move)
        for measure in _LEADING
        if (move := content["moves"].get(measure)) is not None
    ]
    if not sentences:
        return f"Its layers and those of {reference} are ranked by no common measure."
    sentences += [] if content["same_layers"] else ["The layers are not the same; they are set side by side by depth."]
    for key, what in (("perturbed_by", "by another perturbation"), ("same_inputs", "on other inputs")):
        if data.get(key) != of_reference.get(key):
            sentences.append(f"They were looked at {what} than those of {reference}, which may be what differs.")
    return " ".join(sentences)


def _move_text(by: str, name: str, own: Measured, reference: str, other: Measured, move: Mapping[str, Any]) -> str:
    if move["change"] == "unknown":
        quiet = [network for network, names in ((reference, move["from"]), (name, move["to"])) if not names]
        return f"By {by} no layer of {' and none of '.join(quiet)} stands out."
    before, after = _placed(other, move["from"]), _placed(own, move["to"])
    if move["change"] == "not shown":
        where = f"may be {after} in both" if move["from"] == move["to"] else f"may be {before} there and {after} here"
        return f"By {by} the most vulnerable layer is not shown to have moved from {reference} on: it {where}."
    return f"By {by} the most vulnerable layer moved from {before} in {reference} to {after}."


def _placed(one: Measured, names: Sequence[str]) -> str:
    """Names with their depth: "relu#1 (at 25% of the depth)"."""
    return joined([f"{name} (at {one.depth(name):.0%} of the depth)" for name in names])
