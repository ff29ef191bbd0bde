"""Put audits side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from buttress import report
from buttress.attacks import Attack
from buttress.audits import Finding
from buttress.audits.base.class_agreement import between
from buttress.audits.base.finding import read
from buttress.audits.base.ranking import joined
from buttress.audits.base.rating import chance_sentence
from buttress.engine.machine import Accelerator
from buttress.errors import UserError, one_line
from buttress.jobs.audit import new_folder
from buttress.jobs.layer_comparison import with_layers_compared
from buttress.jobs.no_effect import refuse_given
from buttress.jobs.robust_change import robust_change, score_name, shares
from buttress.jobs.settings import Reporter
from buttress.jobs.trade_off import trade_off
from buttress.jobs.transfer import summary, transfer_matrix
from buttress.jobs.transfer_networks import Place, estimate_transfer, open_candidates
from buttress.output_place import claims
from buttress.threat import Threat, budget_text
from buttress.training import read_facts, versions
from buttress.validation import whole

_FEW = 4  # networks; of more, it means little that one comes first and another last


@claims("out")
def compare(
    folders: list[Path],
    *,
    out: Path,
    transfer: bool = False,
    attacks: list[Attack] | None = None,
    threat: Threat | None = None,
    inputs: int | None = None,
    accelerator: Accelerator = "auto",
    dry_run: bool = False,
    command: str = "",
    reporter: Reporter = Reporter(),
) -> Path | None:
    """Put the findings of several audits side by side in one report; with --transfer, the networks against each other.

    Args:
        folders: of audits (or their findings.json), in the order of comparison; with --transfer also of runs.
        out: a new folder for report.html and findings.json.
        transfer: whether adversarial examples of each network are tried on every other one.
        attacks: that craft these; PGD-20 and FGSM by default, as in audits. What an audit by the same attacks has kept
            (--keep-examples) is not crafted again.
        threat: of these attacks; that of the audits, or of the runs' training, by default.
        inputs: for these attacks, the largest number of test inputs; as many as in the audits by default, else 1000.
        accelerator: for these attacks, cpu, cuda or mps; auto takes the best that this machine has.
        dry_run: only print what would be the headline, and about how long attacks take.
        command: the command, for the report.
        reporter: receives messages and progress.

    Raises:
        UserError: for fewer than two audits, for audits on different data, and for what one network crafts and
            another cannot be given.
    """
    if len(folders) < 2:
        raise UserError(f"a comparison needs at least two audits; got {len(folders)}")
    if not transfer:
        unread = {"attacks": attacks, "threat": threat, "inputs": inputs, "accelerator": accelerator}
        refuse_given(compare, unread, "without --transfer")
    if inputs is not None:
        whole("inputs", inputs)
    new_folder(out)
    places: dict[str, Place] = {}
    networks: dict[str, list[Finding]] = {}
    settings: dict[str, object] = {}
    first: dict[str, object] = {}
    for path in folders:
        run = transfer and path.is_dir() and not (path / "findings.json").exists()
        if run:
            by_network, about = {path.resolve().name: list[Finding]()}, {"data": read_facts(path).get("data")}
        else:
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
            places[label] = Place(path, None if run else about)
            own: dict[str, object] = {"from": str(path), "command": about.get("command", "")}
            own.update(_mapping(about, "settings"))
            own |= {"device": device} if (device := _mapping(about, "versions").get("device")) else {}
            settings[label] = own
    shared: dict[str, object] = {key: first[key] for key in ("data", "provenance", "seed") if key in first}
    # The device of each audit is its own.
    facts: dict[str, object] = {"command": command, "versions": versions(), **shared, "settings": settings}
    tried = dict[str, Finding]()
    if transfer:
        how: dict[str, Any] = {"threat": threat, "inputs": inputs, "accelerator": accelerator, "reporter": reporter}
        opened, chosen = open_candidates(places, attacks, **how)
        if dry_run:
            estimate_transfer(opened, chosen, reporter)
        else:
            tried = transfer_matrix(opened, chosen, reporter.watch("transfer"))
    try:
        training = {name: _mapping(_mapping(settings, name), "training") for name in networks}
        trade_offs = trade_off(networks, training)
        many = len(trade_offs) > _FEW
        text = field_of(trade_offs) if many else headline(networks)
        if tried:
            text = " ".join([*([text] if any(map(_robustness, networks.values())) else []), summary(tried)])
        facts["robust accuracy against the last"] = changes(networks)
        facts["order of the classes against the first"] = class_orders(networks)
        networks = with_layers_compared(networks)
        for added in (tried, trade_offs):
            for label, finding in added.items():
                networks[label] = [finding, *networks[label]]
        if trade_offs and (others := [name for name in networks if name not in trade_offs]):
            reporter.line(
                f"attacked otherwise than {next(iter(trade_offs))}, so not in the trade-off: {', '.join(others)}"
            )
        if dry_run:
            reporter.line(text)
            return None
        page = report.write(out, networks, facts, title="Comparison", headline=text, severity="info" if many else None)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # Plain data of the right outer form, but not ours.
        lacking = f"a finding lacks what a comparison needs ({one_line(error)})"
        raise UserError(f"{lacking}: audit the networks again") from None
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
    clean = f"From {names[0]} to {names[-1]}: clean {score_name(first)} {shares(first, last, 'clean')}"
    parts = [clean, robust_change(first, last)[0]]
    if len(names) > 2 and (base := _robustness(networks[names[-2]])) is not None:
        parts.append(f"from {names[-2]} to {names[-1]}: {robust_change(base, last)[0]}")
    sentences = ["; ".join(parts) + ".", _judgement(changes(networks)), _at_chance(names[-1], last)]
    return " ".join(sentence for sentence in sentences if sentence)


def _judgement(tested: Sequence[Mapping[str, Any]]) -> str:
    """A sentence where the last network is no better than the one before it; empty where it is or that is not known."""
    if not tested or tested[-1]["change"] == "gain":
        return ""
    what = "There is no demonstrable gain" if tested[-1]["change"] == "none" else "There is a demonstrable loss"
    return f"{what} in robust accuracy from {tested[-1]['from']} to {tested[-1]['to']}."


def changes(networks: Mapping[str, Sequence[Finding]]) -> list[dict[str, Any]]:
    """Each network but the last against the last, as plain data: those that were attacked in the same way."""
    *others, last = networks
    after = _robustness(networks[last])
    found = []
    for name in others:
        before = _robustness(networks[name])
        if before is not None and after is not None and (test := robust_change(before, after)[1]) is not None:
            found.append({"from": name, "to": last, **test})
    return found


def class_orders(networks: Mapping[str, Sequence[Finding]]) -> list[dict[str, Any]]:
    """How far each network puts its classes in the order of the first, as plain data; see `class_agreement.between`."""
    found = {
        name: finding.data for name, findings in networks.items() for finding in findings if finding.kind == "classes"
    }
    first = next(iter(found), "")
    agreements = {name: between(found[first], data) for name, data in found.items() if name != first}
    return [{"from": first, "to": name, **agreement} for name, agreement in agreements.items() if agreement]


def _at_chance(name: str, finding: Finding) -> str:
    """A sentence where the clean accuracy is that of a guess; empty else, and for findings that know no chance."""
    clean = next((point for point in finding.data.get("worst", ()) if point["eps"] == 0), None)
    right = finding.data.get("right", "classified correctly")
    sentence = "" if clean is None else chance_sentence(clean, finding.data.get("chance"), right)
    return f"{name}: {sentence}" if sentence else ""


def field_of(trade_offs: Mapping[str, Finding]) -> str:
    """Of many networks: the most robust, the most accurate, and those on the Pareto front."""
    rows = {name: finding.data for name, finding in trade_offs.items()}
    robust, clean = (max(rows, key=lambda name: rows[name][figure]) for figure in ("robust", "clean"))
    tied = {
        figure: [name for name, row in rows.items() if figure in row["tied"] and name != first]
        for figure, first in (("robust", robust), ("clean", clean))
    }
    ties = {figure: f"; {joined(names)} cannot be told from it" if names else "" for figure, names in tied.items()}
    front = [name for name, row in rows.items() if row["front"]]
    budget = f"{rows[robust]['norm']} eps {budget_text(rows[robust]['eps'])}"
    return (
        f"Of {len(rows)} networks {robust} is the most robust ({rows[robust]['robust']:.1%} under {budget}, "
        f"{rows[robust]['clean']:.1%} clean{ties['robust']}) and {clean} the most accurate "
        f"({rows[clean]['clean']:.1%} clean, {rows[clean]['robust']:.1%} robust{ties['clean']}). No other is better in "
        f"everything, training passes included, than {', '.join(front)}."
    )


def _robustness(findings: Sequence[Finding]) -> Finding | None:
    return next((finding for finding in findings if finding.kind == "robustness"), None)
