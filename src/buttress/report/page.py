"""The whole page: headline, key figures, a section per kind of finding, and how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from buttress.audits.base.finding import Finding, Severity, Topic, most_serious
from buttress.report.drill_down import drill_down
from buttress.report.figures import fill
from buttress.report.kinds import Key, draw
from buttress.report.kinds.table import nested

MARK = '<meta name="generator" content="buttress">'
_WORDS = {"good": "Good", "info": "Note", "warning": "Warning", "bad": "Bad"}
_MANY = 6  # networks; of more, key figures are a table and not cards
_SECTIONS = 6  # of more, a table of contents leads to them, and those about one thing stand together
_PLACED = ("title", "headline", "severity", "command", "versions")


def groups(networks: Mapping[str, Sequence[Finding]]) -> list[dict[str, Finding]]:
    """Findings that answer one question, by network: of one kind, and of one title where a network has several."""
    counts = [Counter(f.kind for f in findings) for findings in networks.values()]
    several = {kind for count in counts for kind, times in count.items() if times > 1}
    grouped: dict[tuple[str, str, int], dict[str, Finding]] = {}
    for name, findings in networks.items():
        seen: Counter[tuple[str, str]] = Counter()
        for finding in findings:
            key = finding.kind, finding.title if finding.kind in several else ""
            seen[key] += 1
            grouped.setdefault((*key, seen[key]), {})[name] = finding
    return list(grouped.values())


def _contents(grouped: Sequence[dict[str, Finding]]) -> dict[str, list[dict[str, Finding]]]:
    """The groups of findings by what they are about, in reading order; topics that are not known come last."""
    order = {topic: place for place, topic in enumerate(get_args(Topic))}
    topics = [next(iter(group.values())).topic for group in grouped]
    reading = sorted(dict.fromkeys(topics), key=lambda topic: order.get(topic, len(order)))
    return {t: [group for group, topic in zip(grouped, topics, strict=True) if topic == t] for t in reading}


def worst(networks: Mapping[str, Sequence[Finding]]) -> Severity:
    """The most serious severity found in the last network, which is where a comparison arrives; "info" for none."""
    return most_serious(*(f.severity for findings in list(networks.values())[-1:] for f in findings))


def without_duplicates(keys: Sequence[Key]) -> list[Key]:
    """Without figures that others with the same label and note hold already, as two kinds tell clean accuracy."""
    unique: list[Key] = []
    for key in keys:
        alike = [i for i, other in enumerate(unique) if (other.label, other.note) == (key.label, key.note)]
        if any(_within(key, unique[i]) for i in alike):
            continue
        within = [i for i in alike if _within(unique[i], key)]
        if within:  # the fuller one, in the place of the first that it holds
            unique[within[0]] = key
            unique = [other for i, other in enumerate(unique) if i not in within[1:]]
        else:
            unique.append(key)
    return unique


def _within(one: Key, other: Key) -> bool:
    return one.values.items() <= other.values.items() and one.changes.items() <= other.changes.items()


def page(networks: Mapping[str, Sequence[Finding]], facts: Mapping[str, Any]) -> str:
    """The HTML of a report.

    Args:
        networks: findings by network.
        facts: as for `buttress.report.write`, with "title", "headline" and perhaps "severity".
    """
    grouped = groups(networks)
    contents = _contents(grouped) if len(grouped) > _SECTIONS else {}
    grouped = [group for groups in contents.values() for group in groups] or grouped
    drawn = [(draw(group), drill_down(group, networks)) for group in grouped]
    sections = [replace(section, html=section.html + links) for section, links in drawn]
    keys = without_duplicates([key for section in sections for key in section.keys])
    plain = {k: v for k, v in facts.items() if k not in _PLACED and not isinstance(v, Mapping | list | tuple)}
    folded = {k: nested(v) for k, v in facts.items() if k not in _PLACED and isinstance(v, Mapping | list | tuple)}
    plots = any('class="plot"' in section.html for section in sections)
    return fill(
        "page.html",
        mark=MARK,
        title=facts.get("title", "Robustness report"),
        headline=facts.get("headline", ""),
        severity=facts.get("severity") or worst(networks),
        words=_WORDS,
        networks=list(networks),
        sections=list(zip(grouped, sections, strict=True)),
        contents=contents,
        keys=keys,
        many=_MANY,
        command=facts.get("command"),
        versions=facts.get("versions") or {},
        plain=plain,
        folded=folded,
        style=_template("style.css"),
        script=_template("page.js") if plots else "",
        plotly=_plotly() if plots else "",
    )


def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
