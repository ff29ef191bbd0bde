"""In plain words: where layer regularisation helped, where it did not, and whether the centred measure does better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from buttress.claims.seed_statistics import paired_difference

_MEASURES = {
    "relative_error": "The published measure (relative error)",
    "centred": "The centred measure",
    "between_classes": "Against the distance between classes",
    "tolerance": "Against the tolerance of the rest",
    "margin_direction": "Along the direction of the margin",
}
_COMPARED = ("relative_error", "centred")


def points(value: float) -> str:
    """A difference with its sign and one digit; what rounds to 0 has no minus."""
    return f"{round(value, 1) + 0.0:+.1f}"


def regularisation_summary(claim: Mapping[str, Any]) -> str:
    """What the regularised rows of a table did against their bases, by measure and attack."""
    pairs = claim["regularised"]
    used = {pair["measure"] for pair in pairs}
    measures = [*(m for m in _MEASURES if m in used), *sorted(used - set(_MEASURES))]
    if not measures:
        return ""
    lines = [
        "### Does layer regularisation help here?",
        "R&G of each regularised row against its own base, trained for as long where the table has such a row:",
    ]
    bullets = []
    for measure in measures:
        mine, called = [pair for pair in pairs if pair["measure"] == measure], f"The measure {measure}"
        for label in mine[0]["under"]:
            bullets.append(f"- {_MEASURES.get(measure, called)}, under {label}: {_judgement(mine, label)}")
    lines.append("\n".join(bullets))
    lines.append(_sizes(claim["checks"]))
    if set(_COMPARED) <= set(measures):
        lines.append(_centred(pairs))
    return "\n\n".join(line for line in lines if line)


def _judgement(pairs: Sequence[Mapping[str, Any]], label: str) -> str:
    """One sentence of counts, and a judgement that follows from them."""
    above, below = _clear_differences(pairs, label)
    means = [pair["under"][label]["mean"] for pair in pairs]
    average = sum(means) / len(means)
    rest = len(pairs) - len(above) - len(below)
    if not above:
        judgement = "It does not help" + (", and it harms." if below else ".")
    elif below:
        judgement = "It helps in places and harms in others."
    elif len(above) == len(pairs):
        judgement = "It helps throughout."
    else:
        judgement = "It helps in places."
    where = (f" Above: {', '.join(above)}." if above else "") + (f" Below: {', '.join(below)}." if below else "")
    return (
        f"{judgement} Of {len(pairs)} rows, {len(above)} are above their base with an interval that excludes 0, "
        f"{len(below)} below, and {rest} show no difference that so few seeds can tell from 0; "
        f"the mean difference is {points(average)} points.{where}"
    )


def _sizes(checks: Sequence[Mapping[str, Any]]) -> str:
    """How large the differences of the checks are beside the published ones; of those for which a number is known."""
    checks = [check for check in checks if check["published"] is not None]
    if not checks:
        return ""
    published = sum(check["published"] for check in checks) / len(checks)
    means = [
        f"{points(sum(check['under'][label]['mean'] for check in checks) / len(checks))} points under {label}"
        for label in checks[0]["under"]
    ]
    measured = " and ".join(means)
    return f"On average the differences that the checks below speak of are {measured}; published: {points(published)}."


def _clear_differences(pairs: Sequence[Mapping[str, Any]], label: str) -> tuple[list[str], list[str]]:
    """The rows above and below their bases by an interval that excludes 0, each with its mean difference."""
    above, below = [], []
    for pair in pairs:
        low, high = pair["under"][label]["low"], pair["under"][label]["high"]
        if low is not None and low > 0:
            above.append(f"{pair['row']} ({points(pair['under'][label]['mean'])})")
        if high is not None and high < 0:
            below.append(f"{pair['row']} ({points(pair['under'][label]['mean'])})")
    return above, below


def _centred(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Whether the centred measure does better than the published one, under the strongest attack of the table."""
    label = list(pairs[0]["under"])[-1]
    mine = {measure: [pair for pair in pairs if pair["measure"] == measure] for measure in _COMPARED}
    gains, harms = map(len, _clear_differences(mine["centred"], label))
    if gains and not harms:
        conclusion = f"The centred measure helps in {gains} rows and harms in none"
    elif gains:
        conclusion = f"The centred measure helps in {gains} rows and harms in {harms}"
    elif harms:
        conclusion = f"The centred measure does not help either, and harms in {harms} rows"
    else:
        conclusion = "The centred measure shows neither gain nor harm that so few seeds can tell from 0"
    published, centred = (_by_seed(mine[measure], label) for measure in _COMPARED)
    difference = paired_difference([round(one - other, 9) for one, other in zip(centred, published, strict=True)])
    mean, low, high = difference["mean"], difference["low"], difference["high"]
    told = low is not None and (low > 0 or high < 0)
    better = (
        ("better" if mean > 0 else "worse") if told else "neither better nor worse, as far as these seeds can tell,"
    )
    interval = "" if low is None else f", {points(low)} to {points(high)}"
    return (
        f"**{conclusion}** (under {label}); on average it does {better} than the published measure "
        f"({points(mean)}{interval} points of R&G over the base, seed by seed)."
    )


def _by_seed(pairs: Sequence[Mapping[str, Any]], label: str) -> list[float]:
    """The mean over rows of what they have over their bases, for each seed."""
    seeds = zip(*(pair["under"][label]["seeds"] for pair in pairs), strict=True)
    return [sum(values) / len(pairs) for values in seeds]


def profile_summary(claim: Mapping[str, Any]) -> str:
    """Which layer is displaced furthest, by network, measure and perturbation."""
    lines = []
    for name, profile in claim["profiles"].items():
        for measure, by_perturbation in profile["displacement"].items():
            by_layer: dict[str, list[str]] = {layer: [] for layer in profile["layers"]}
            for perturbation, values in by_perturbation.items():
                means = [value["mean"] for value in values]
                by_layer[profile["layers"][means.index(max(means))]].append(perturbation)
            text = "; ".join(f"{layer} under {', '.join(names)}" for layer, names in by_layer.items() if names)
            lines.append(f"- {name}, {measure.replace('_', ' ')}: {text}.")
    return "### Which layer is displaced furthest?\n\n" + "\n".join(lines)


def gain_summary(claim: Mapping[str, Any]) -> str:
    """Which cells of the published tables give the gains that were announced."""
    lines = []
    for cell in claim["cells"]:
        cells = [_cell(entry) for entry in cell["found"]]
        if cells:
            text = f"{cell['gain']:+g} ({cell['recipe']}): the published table gives it as {'; '.join(cells)}."
        else:
            near = "; ".join(_cell(entry) for entry in cell["nearest"])
            text = (
                f"{cell['gain']:+g} ({cell['recipe']}): it is no difference of two cells of a column. Nearest: {near}."
            )
        lines.append(f"- {text}")
    return "### Which published cells give these gains?\n\n" + "\n".join(lines)


def _cell(entry: Mapping[str, Any]) -> str:
    column = entry["at"] if entry["at"] == "R&G" else f"eps {entry['at']}"
    return f"{entry['better']} less {entry['than']} at {column} ({entry['difference']:+.2f})"
