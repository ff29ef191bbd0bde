"""Findings as one self-contained HTML file, and as JSON beside it from which the page can be drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from buttress.audits.base.finding import Finding, Severity, read, to_json
from buttress.errors import UserError
from buttress.report.page import MARK, page
from buttress.safe_files import write_text

__all__ = ["rewrite", "write"]


def write(
    folder: str | Path,
    networks: Mapping[str, Sequence[Finding]],
    facts: Mapping[str, Any],
    *,
    title: str,
    headline: str,
    severity: Severity | None = None,
) -> Path:
    """Write ``findings.json`` and ``report.html`` into ``folder``; an earlier report of ours there is replaced.

    Args:
        folder: where to; made when missing.
        networks: findings by network, in the order of comparison: one, or for example "baseline" and "hardened".
        facts: how they came about, as plain data. "command", "seed", "versions", "data", "provenance" and "settings"
            have places of their own; everything else is listed.
        title: of the page.
        headline: the verdict on the whole, one sentence.
        severity: of the headline; the worst of the last network's findings unless given.

    Returns:
        The path of ``report.html``.

    Raises:
        UserError: when there is no network, or a file there is not ours, or the disk is full.
    """
    if not networks:
        raise UserError("a report needs the findings of at least one network; got none")
    headings = {"title": title, "headline": headline, "severity": severity}
    facts = {**facts, **{name: value for name, value in headings.items() if value is not None}}
    text = to_json(networks, facts)
    path = Path(folder) / "findings.json"
    if path.exists():
        read(path)
    return _write_files(path.with_name("report.html"), page(networks, facts), {path: text})


def rewrite(findings: str | Path) -> Path:
    """Draw ``report.html`` again beside a ``findings.json``, from that file alone.

    Raises:
        UserError: when the file is missing or is something else.
    """
    networks, facts = read(findings)
    return _write_files(Path(findings).with_name("report.html"), page(networks, facts), {})


def _write_files(path: Path, html: str, others: Mapping[Path, str]) -> Path:
    """Replace the files, each in one step, once it is sure that the page there is ours."""
    if path.exists() and MARK.encode() not in path.read_bytes()[:2000]:
        raise UserError(f"{path} was not written by buttress: move it away or choose another folder")
    for other, text in {**others, path: html}.items():
        write_text(other, text)
    return path
