"""The result of an audit: plain data that survives JSON, one sentence, and how serious it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from buttress.attacks import Attack
from buttress.errors import UserError
from buttress.plain_data import read_json

Severity = Literal["good", "info", "warning", "bad"]
# What audits are about, in the order in which a report of many is read.
Topic = Literal[
    "How robust it is",
    "Whether the figures can be trusted",
    "Where it fails",
    "What happens inside",
    "How sure it is of itself",
    "What it gives away",
    "Further questions",
]
_BUDGETS = {"eps", "main_eps"}  # what may be infinite, by its key


@dataclass(frozen=True)
class Finding:
    """The result of one audit of one network.

    Attributes:
        kind: the audit, which is also how it is drawn: "robustness", "layers", "examples", "boundary" ...
        title: a heading of a few words.
        verdict: one sentence in plain words.
        severity: "good", "info", "warning" or "bad".
        data: figures, as plain numbers, texts, lists and dictionaries.
        next: the attack to run next, where the audit proposes one; for the caller, and in no file.
        topic: what it is about, under which a report of many findings lists it; the audit's.
    """

    kind: str
    title: str
    verdict: str
    severity: Severity
    data: Mapping[str, Any]
    next: Attack | None = field(default=None, compare=False, repr=False)
    topic: str = "Further questions"


def most_serious(*severities: Severity) -> Severity:
    """The most serious of them; "info" for none."""
    order = get_args(Severity)
    worst: Severity = order[max(map(order.index, severities))] if severities else "info"
    return worst


def checked_finding(finding: object, audit: str) -> Finding:
    """What an audit answered, when it is a finding that can be reported.

    Args:
        finding: the answer.
        audit: its name, for the error.

    Raises:
        UserError: for anything else, naming what is wrong.
    """
    if not isinstance(finding, Finding):
        raise UserError(f"{audit} answered with a {type(finding).__name__}: ask must return an audits.Finding")
    for name in ("kind", "title", "verdict"):
        if not isinstance(getattr(finding, name), str):
            raise UserError(f"{audit}: the finding's {name} must be a text; got {getattr(finding, name)!r}")
    if finding.severity not in get_args(Severity):
        choices = ", ".join(get_args(Severity))
        raise UserError(f"{audit}: the finding's severity must be one of {choices}; got {finding.severity!r}")
    if not isinstance(finding.data, Mapping):
        raise UserError(f"{audit}: the finding's data must map names to figures; got a {type(finding.data).__name__}")
    _json_value(finding.data, f"{audit}, data")
    return finding


def to_json(networks: Mapping[str, Iterable[Finding]], facts: Mapping[str, Any]) -> str:
    """Findings by network, and facts about the run, as the text of ``findings.json``."""
    plain = {name: [_plain(finding) for finding in findings] for name, findings in networks.items()}
    content = {"facts": dict(facts), "networks": plain}
    return json.dumps(_json_value(content, "findings"), indent=1, allow_nan=False)


def _plain(finding: Finding) -> dict[str, Any]:
    plain = asdict(replace(finding, next=None))
    del plain["next"]
    return plain


def _json_value(value: Any, where: str) -> Any:
    """Plain data with what JSON has no number for: an infinite budget as the text "inf", NaN as null.

    Raises:
        UserError: for what is no plain data, naming its place.
    """
    if isinstance(value, Mapping):
        return {str(key): _json_value(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(part, where) for part in value]
    if isinstance(value, float) and value == math.inf:
        return "inf"
    if isinstance(value, float) and not math.isfinite(value):
        return None  # a figure that is not defined
    if value is None or isinstance(value, str | int | float):
        return value
    raise UserError(
        f"a finding is plain data; {where} is a {type(value).__name__}: give numbers, texts, lists and dictionaries"
    )


def _with_infinite_budgets(tree: dict[str, Any]) -> dict[str, Any]:
    for key in _BUDGETS & set(tree):
        if tree[key] == "inf":
            tree[key] = math.inf
    return tree


def read(path: str | Path) -> tuple[dict[str, list[Finding]], dict[str, Any]]:
    """Findings by network, and the facts, back from ``findings.json``.

    Raises:
        UserError: when the file is missing or is something else.
    """
    try:
        content = read_json(Path(path).read_text(encoding="utf-8"), object_hook=_with_infinite_budgets)
        networks = {name: [Finding(**f) for f in findings] for name, findings in content["networks"].items()}
        facts = dict(content["facts"])
    except FileNotFoundError:
        raise UserError(f"there is no {path}: audit the network first") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no findings.json of buttress ({type(error).__name__}: {error})") from None
    if not any(networks.values()):
        raise UserError(f"{path} holds no finding: audit the network again")
    if any(f.severity not in get_args(Severity) for findings in networks.values() for f in findings):
        raise UserError(
            f"{path} is no findings.json of buttress: a severity is none of {', '.join(get_args(Severity))}"
        )
    return networks, facts
