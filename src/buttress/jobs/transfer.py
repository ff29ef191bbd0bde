"""Adversarial examples of each network tried on every other: what an attacker who has one can do to the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from buttress.attacks import Attack
from buttress.audits import Finding
from buttress.audits.base.ranking import joined
from buttress.audits.base.statistics import INTERVAL, interval, paired
from buttress.audits.base.subject import Subject, Timed, same_inputs
from buttress.errors import NoGradientError, UserError
from buttress.training.loop import Progress

_TITLE = "Transfer between networks"
_LEVEL = 0.05  # of all comparisons of networks' own examples with those of others together
_FEW = 4  # networks; of more, a sentence tells the highest and the lowest share

Row = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A network that takes part.

    Attributes:
        subject: the network and its inputs.
        kept: the folder in which an audit of it has kept what it crafted, which is not crafted again.
    """

    subject: Subject
    kept: Path | None = None

    def has_kept(self, attack: Attack) -> bool:
        """Whether the examples of all inputs are there."""
        return replace(self.subject, folder=self.kept).has_kept(attack)

    def crafted(self, attack: Attack) -> Timed:
        """The attack's examples of all inputs, kept or new; nothing of them is held for the next attack."""
        return replace(self.subject, folder=self.kept if self.has_kept(attack) else None, store={}).attacked(attack)


def transfer_matrix(
    networks: Mapping[str, Candidate], attacks: Sequence[Attack], progress: Progress | None = None
) -> dict[str, Finding]:
    """Try each attack's examples of each network on every network, itself among them.

    A cell is the share of the inputs that both networks get right whose example, crafted on the one, is wrong for the
    other, with its exact binomial interval. Crafting goes on after the first success (the full search): what only just
    fools its own network would hardly fool another. No figure depends on the order of the networks.

    Args:
        networks: by name, two or more.
        attacks: with their threats; one that needs gradients is left out where a network gives none.
        progress: is told the share of the rows that are done.

    Returns:
        By network, a finding about what was crafted on it, a row of each attack's matrix; and about examples of others
        that are more successful on it than its own, which an attack that works on it should not let happen: McNemar's
        exact tests at 5 % over all pairs (Bonferroni).

    Raises:
        UserError: for networks of which one cannot be given what was crafted on another; see `check_comparable`.
    """
    check_comparable({name: one.subject for name, one in networks.items()})
    right = {name: ~_wrong(one.subject, one.subject.logits) for name, one in networks.items()}
    rows: dict[str, list[Row]] = {name: [] for name in networks}
    tests = list[Row]()
    for attack in attacks:
        wrong = dict[str, dict[str, Tensor]]()  # by source and target, (N,) bool
        for source, one in networks.items():
            if progress is not None:
                done = sum(map(len, rows.values())) / (len(attacks) * len(networks))
                progress(done, {f"{attack.label()} on {source}": done})
            row: Row = {"attack": attack.label(), "threat": attack.threat.text(), "kept": one.has_kept(attack)}
            rows[source].append(row)
            try:
                points = one.crafted(attack).outcome.x_adv
            except NoGradientError:
                row |= {"cells": {}, "left_out": "the network gives no gradients"}
                continue
            wrong[source] = {
                name: _wrong(other.subject, other.subject.output(points)) for name, other in networks.items()
            }
            row["cells"] = {name: _cell(right[source] & right[name], wrong[source], source, name) for name in networks}
        tests += _beyond_own(attack, wrong, right, next(iter(networks.values())).subject.seed)
    shown = [test for test in tests if test["p"] * len(tests) < _LEVEL and test["difference"] > 0]
    return {name: _finding(name, rows[name], [test for test in shown if test["target"] == name]) for name in networks}


def check_comparable(subjects: Mapping[str, Subject]) -> None:
    """Refuse networks of which one cannot be given what was crafted on another.

    Raises:
        UserError: naming the two, and what differs: task, tokens, shape or inputs.
    """
    (first, one), *others = subjects.items()
    if one.tokens is not None:
        raise UserError(
            f"{first} reads tokens: what is crafted are values of its own embedding, which no other network can read"
        )
    for name, other in others:
        if other.task != one.task:
            raise UserError(
                f"{first} is for {one.task.label()}, {name} for {other.task.label()}: transfer needs one task"
            )
        if other.x.shape[1:] != one.x.shape[1:]:
            shapes = [" x ".join(map(str, subject.x.shape[1:])) for subject in (one, other)]
            raise UserError(f"inputs of {first} are {shapes[0]}, those of {name} {shapes[1]}: transfer needs one shape")
        if same_inputs(other) != same_inputs(one):
            raise UserError(
                f"{first} and {name} are on other inputs: transfer needs the same data, --inputs and --seed for all"
            )
        if other.logits.shape != one.logits.shape:
            outputs = [subject.logits[0].numel() for subject in (one, other)]
            raise UserError(f"{first} has {outputs[0]} outputs, {name} {outputs[1]}: transfer needs the same classes")


def summary(findings: Mapping[str, Finding]) -> str:
    """The matrix of the first attack in a sentence, and which networks' own examples are not the most successful."""
    cells = {
        (source, target): cell
        for source, finding in findings.items()
        for target, cell in finding.data["attacks"][0]["cells"].items()
        if target != source and cell["share"] is not None
    }
    if not cells:
        return "No example could be tried on another network: none was crafted, or no two networks are right together."
    order = sorted(cells, key=lambda pair: (-cells[pair]["share"], pair))  # the same in any order of the networks
    two = len(findings) == 2
    told = order if two else [order[0], *order[1:][-1:]]
    parts = [f"those crafted on {source} {_on(target, cells[source, target])}" for source, target in told]
    if not two:
        parts = [f"{part}, the {which} of all pairs," for part, which in zip(parts, ("most", "least"), strict=False)]
    attack = next(iter(findings.values())).data["attacks"][0]["attack"]
    beyond = [test["text"] for finding in findings.values() for test in finding.data["beyond_own"][:1]]
    return " ".join([f"Of {attack}'s examples {joined(parts)} of the inputs that both get right.", *beyond])


def _wrong(subject: Subject, output: Tensor) -> Tensor:
    return subject.task.is_adversarial(output, subject.y)


def _cell(both: Tensor, wrong: Mapping[str, Tensor], source: str, target: str) -> Row:
    """Of the inputs that ``both`` get right: how many fool the target, and how many of those that fool the source."""
    count, beaten = int(both.sum()), int((both & wrong[target]).sum())
    low, high = interval(beaten, count) if count else (None, None)
    return {
        "inputs": count,
        "beaten": beaten,
        "share": beaten / count if count else None,
        "low": low,
        "high": high,
        "successful": int((both & wrong[source]).sum()),
        "carried": int((both & wrong[source] & wrong[target]).sum()),
    }


def _beyond_own(
    attack: Attack, wrong: Mapping[str, Mapping[str, Tensor]], right: Mapping[str, Tensor], seed: int
) -> list[Row]:
    """Each network's own examples against those of every other, on the inputs that both get right."""
    tests = []
    for source in wrong:
        for target in wrong:
            both = right[source] & right[target]
            if source == target or not bool(both.any()):
                continue
            own, others = wrong[target][target][both], wrong[source][target][both]
            shares = f"{float(others.float().mean()):.1%} against {float(own.float().mean()):.1%} of {len(own)} inputs"
            test = paired(own, others, seed)
            text = (
                f"{attack.label()}'s examples crafted on {source} are more successful on {target} than its own "
                f"({shares}, exact McNemar p = {test['p']:.2g}): a sign of masked gradients, which the audit masking "
                "looks into."
            )
            tests.append({"attack": attack.label(), "source": source, "target": target, **test, "text": text})
    return tests


def _finding(name: str, rows: Sequence[Row], beyond_own: Sequence[Row]) -> Finding:
    data = {"attacks": list(rows), "interval": INTERVAL, "beyond_own": list(beyond_own)}
    verdict = " ".join([_row_text(name, rows[0]), *(test["text"] for test in beyond_own)])
    return Finding("transfer", _TITLE, verdict, "warning" if beyond_own else "info", data)


def _row_text(name: str, row: Row) -> str:
    others = {target: cell for target, cell in row["cells"].items() if target != name and cell["share"] is not None}
    if not others:
        reason = row.get("left_out", "it is right on no input that another network gets right")
        return f"No example of {row['attack']} crafted on {name} was tried on others: {reason}."
    order = sorted(others, key=lambda target: -others[target]["share"])
    told = order if len(order) < _FEW else [order[0], order[-1]]
    parts = [_on(target, others[target]) for target in told]
    own = row["cells"][name]
    text = f"{row['attack']}'s examples crafted on {name} {joined(parts)} of the inputs that both get right"
    return f"{text}; {name} itself on {own['share']:.1%} of its own." if own["share"] is not None else f"{text}."


def _on(target: str, cell: Row) -> str:
    return f"fool {target} on {cell['share']:.1%} ({cell['low']:.1%} to {cell['high']:.1%})"
