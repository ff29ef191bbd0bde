"""A bound on robust accuracy, by which a build fails."""

from __future__ import annotations

from collections.abc import Sequence

from buttress.audits import Audit, Finding
from buttress.audits.robustness import Robustness
from buttress.errors import GateNotMet, UserError


def check_gate(fail_under: float | None, questions: Sequence[Audit]) -> None:
    """Refuse a gate that nothing could be compared with, before the work begins.

    Raises:
        UserError: for a bound that is no percentage, or when robustness is not among the audits.
    """
    if fail_under is None:
        return
    if not 0 <= fail_under <= 100:
        raise UserError(f"the gate is a robust accuracy in percent, from 0 to 100; got {fail_under:g}")
    if not any(isinstance(question, Robustness) for question in questions):
        raise UserError("the gate needs the robustness audit among the audits")


def gate(findings: Sequence[Finding], fail_under: float | None) -> None:
    """Compare the lowest robust accuracy over the audited norms with a bound in percent.

    Raises:
        GateNotMet: when it is lower.
        UserError: when robustness was left out, so that nothing was measured.
    """
    if fail_under is None:
        return
    robustness = [finding.data for finding in findings if finding.kind == "robustness"]
    if not robustness:
        raise UserError("the gate could not be checked, for the robustness audit was left out: see the report")
    score = robustness[0].get("score", "accuracy")
    robust = 100 * min(p["accuracy"] for data in robustness for p in data["worst"] if p["eps"] == data["main_eps"])
    if robust < fail_under:
        raise GateNotMet(f"robust {score} {robust:.1f}% is under the gate of {fail_under:g}%")
