"""Put audits side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from buttress import report
from buttress.audits import Finding
from buttress.audits.base.finding import read
from buttress.audits.base.rating import chance_sentence
from buttress.audits.base.statistics import paired
from buttress.errors import UserError
from buttress.jobs.audit import new_folder
from buttress.jobs.settings import Reporter
from buttress.jobs.trade_off import trade_off
from buttress.threat import budget_text
from buttress.training import versions

_FEW = 4  # networks; of more, it means little that one comes first and another last


def compare(folders: list[Path], *, out: Path, command: str = "", reporter: Reporter = Reporter()) -> Path:
    """Put the findings of several audits side by side in one report.

    Args:
        folders: of audits (or their findings.json), in the order of comparison.
        out: a new folder for report.html and findings.json.
        command: the command, for the report.
        reporter: receives messages and progress.

    Raises:
        UserError: for fewer than two audits, and for audits on different data.
    """
    if len(folders) < 2:
        raise UserError(f"a comparison needs at least two audits; got {len(folders)}")
    new_folder(out)
    networks: dict[str, list[Finding]] = {}
    settings: dict[str, object] = {}
    first: dict[str, object] = {}
    for path in folders:
        by_network, about = read(path / "findings.json" if path.is_dir() else path)
        if first and first.get("data") != about.get("data"):
            raise UserError(
                f"{path} is about {about.get('data')}, {folders[0]} about {first.get('data')}: compare like data"
            )
        first = first or about
        for name, findings in by_network.items():
            label, number = name, 2
            while label in networks:
                label, number = f"{name} ({number})", number + 1
            networks[label] = findings
            own: dict[str, object] = {"from": str(path), "command": about.get("command", "")}
            own.update(_mapping(about, "settings"))
            settings[label] = own
    shared: dict[str, object] = {key: first[key] for key in ("data", "provenance", "seed") if key in first}
    facts: dict[str, object] = {"command": command, "versions": versions(), **shared, "settings": settings}
    try:
        training = {name: _mapping(_mapping(settings, name), "training") for name in networks}
        trade_offs = trade_off(networks, training)
        many = len(trade_offs) > _FEW
        text = field_of(trade_offs) if many else headline(networks)
        for label, finding in trade_offs.items():
            networks[label] = [finding, *networks[label]]
        if trade_offs and (others := [name for name in networks if name not in trade_offs]):
            reporter.line(
                f"attacked otherwise than {next(iter(trade_offs))}, so not in the trade-off: {', '.join(others)}"
            )
        page = report.write(out, networks, facts, title="Comparison", headline=text, severity="info" if many else None)
    except (KeyError, TypeError, AttributeError) as error:  # plain data of the right outer form, but not ours
        raise UserError(f"a finding lacks what a comparison needs ({error}): audit the networks again") from None
    reporter.line(text)
    reporter.line(f"report: {page}")
    return page


def _mapping(facts: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}


def headline(networks: Mapping[str, Sequence[Finding]]) -> str:
    """From the first network to the last, and against the last but one: clean and robust accuracy, with paired tests.

    Robust accuracies are set against each other only under the same norm and budget, and tested input by input only
    where the same inputs were attacked.
    """
    names = list(networks)
    last = _robustness(networks[names[-1]])
    first = _robustness(networks[names[0]])
    if first is None or last is None:
        return "These audits hold no robustness finding to compare."
    if len({finding.data.get("score") for finding in (first, last)}) > 1:
        return "These audits are of different tasks, whose scores are not compared."
    parts = [
        f"From {names[0]} to {names[-1]}: clean {_score(first)} {_change(first, last, 'clean')}",
        _robust(first, last),
    ]
    if len(names) > 2 and (base := _robustness(networks[names[-2]])) is not None:
        parts.append(f"from {names[-2]} to {names[-1]}: {_robust(base, last)}")
    text = "; ".join(parts) + "."
    return f"{text} {sentence}" if (sentence := _at_chance(names[-1], last)) else text


def _at_chance(name: str, finding: Finding) -> str:
    """A sentence where the clean accuracy is that of a guess; empty else, and for findings that know no chance."""
    clean = next((point for point in finding.data.get("worst", ()) if point["eps"] == 0), None)
    sentence = "" if clean is None else chance_sentence(clean, finding.data.get("chance"))
    return f"{name}: {sentence}" if sentence else ""


def field_of(trade_offs: Mapping[str, Finding]) -> str:
    """Of many networks: the most robust, the most accurate, and those on the Pareto front."""
    rows = {name: finding.data for name, finding in trade_offs.items()}
    robust, clean = (max(rows, key=lambda name: rows[name][figure]) for figure in ("robust", "clean"))
    front = [name for name, row in rows.items() if row["front"]]
    budget = f"{rows[robust]['norm']} eps {budget_text(rows[robust]['eps'])}"
    return (
        f"Of {len(rows)} networks {robust} is the most robust ({rows[robust]['robust']:.1%} under {budget}, "
        f"{rows[robust]['clean']:.1%} clean) and {clean} the most accurate ({rows[clean]['clean']:.1%} clean, "
        f"{rows[clean]['robust']:.1%} robust). No other is better in everything, training passes included, than "
        f"{', '.join(front)}."
    )


def _robustness(findings: Sequence[Finding]) -> Finding | None:
    return next((finding for finding in findings if finding.kind == "robustness"), None)


def _robust(first: Finding, last: Finding) -> str:
    """What became of robust accuracy, with McNemar's exact test over the same inputs."""
    before, after = (_budget(finding) for finding in (first, last))
    if before != after:
        return f"robust {_score(first)} is not compared, being under {before} and {after}"
    text = f"robust {_score(first)} {_change(first, last, 'main')} under {after}"
    if first.data["fingerprints"] != last.data["fingerprints"] or first.data["seed"] != last.data["seed"]:
        return f"{text}, by different attacks, seeds or versions of buttress, which are not compared"
    if first.data["same_inputs"] != last.data["same_inputs"]:
        return f"{text}, on different inputs"
    test = paired(_robust_inputs(first), _robust_inputs(last), seed=first.data["seed"])
    if not test["gained"] + test["lost"]:
        return f"{text}, the same inputs"
    change = f"{100 * test['low']:+.1f} to {100 * test['high']:+.1f} points"
    counts = f"{test['gained']} inputs gained, {test['lost']} lost"
    return f"{text} ({counts}, exact McNemar p = {test['p']:.2g}, paired bootstrap {change})"


def _score(finding: Finding) -> str:
    """What the share of right outputs is called."""
    return str(finding.data.get("score", "accuracy"))


def _robust_inputs(finding: Finding) -> torch.Tensor:
    """(N,) bool, the inputs classified correctly at the main budget."""
    return torch.tensor([one == "1" for one in finding.data["stands"]["main"]])


def _budget(finding: Finding) -> str:
    return f"{finding.data['attacks'][0]['norm']} eps {budget_text(finding.data['main_eps'])}"


def _change(first: Finding, last: Finding, which: str) -> str:
    before, after = (f.data["stands"][which].count("1") / f.data["inputs"] for f in (first, last))
    return f"{before:.1%} to {after:.1%}"
