"""Questions about a trained network, one file each; `run` runs them."""

from typing import Any

from buttress.audits.base.audit import Audit, run
from buttress.audits.base.evaluation import Evaluation, evaluate
from buttress.audits.base.finding import Finding
from buttress.audits.base.subject import Subject, subject
from buttress.registry import audit as _registry

__all__ = ["Audit", "Evaluation", "Finding", "Subject", "evaluate", "names", "run", "subject"]


def names() -> list[str]:
    """The registered audits."""
    return _registry.names()


def __getattr__(name: str) -> Any:
    return _registry.attribute(__name__, name)
