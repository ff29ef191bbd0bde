"""Certificates: proofs that no perturbation within a budget changes a network's answer."""

from typing import Any

from buttress.certificates.certificate import Certificate
from buttress.certificates.certify import certify, radius
from buttress.certificates.smoothing import Smoothed
from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.registry import verifier as _registry

__all__ = ["Answer", "Certificate", "Problem", "Smoothed", "Verifier", "certify", "names", "radius"]


def names() -> list[str]:
    """The registered verifiers."""
    return _registry.names()


def __getattr__(name: str) -> Any:
    return _registry.attribute(__name__, name)
